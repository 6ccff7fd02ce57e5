"""``tokenizer.json``: what the ``tokenizers`` library runs, and so what a fine-tune was trained with.

Two kinds of BPE are known in it. The byte-level one keeps its merges ("gpt2" in llama.cpp). That of
SentencePiece, with ▁ for a space and tokens for bytes, becomes "llama", which merges by score: the score of
a token is the negative of the rank of the merge that makes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer
from tokenizers import normalizers as normal

from convert.errors import CheckpointError, UnsupportedError
from convert.files.json_file import read_json
from convert.vocabularies.byte_level import missing_bytes
from convert.vocabularies.splits import find_split
from convert.vocabularies.token_table import SPACE, UNEQUAL, Limit, TokenTable, check_ids
from convert.vocabularies.tokenizer_config import read_added

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_SPACES = ({"String": " "}, SPACE)
UNREACHED = -1e9
"""The score of a token that no merge makes."""


def read_tokenizer_json(path: Path, prefix_space: bool | None = None) -> TokenTable:
    """Read a tokenizer.json.

    Args:
        path: the file.
        prefix_space: whether a space goes before a text, whatever the file says; None if it decides.

    Raises:
        CheckpointError: the file is malformed.
        UnsupportedError: llama.cpp cannot load such a vocabulary.
    """
    file = read_json(path)
    changed = prefix_space is not None and _set_prefix_space(path, file, prefix_space)
    model = _section(path, file, "model")
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE":
        raise UnsupportedError(f"{path}: the model is {kind}; only BPE can be converted")
    _refuse_settings(path, model)
    vocabulary = _section(path, model, "vocab")
    texts = check_ids(path, vocabulary)
    merges = _merges(path, model, vocabulary)
    pre_tokenizers = _parts(path, file, "pre_tokenizer", "pretokenizers")
    if any(part.get("type") == "ByteLevel" for part in pre_tokenizers):
        table = _byte_level(path, file, texts, merges)
    elif model.get("byte_fallback"):
        table = _sentencepiece(path, file, texts, merges, pre_tokenizers)
    else:
        raise UnsupportedError(
            f"{path}: a BPE that is neither byte-level nor falls back on bytes has no equal in llama.cpp"
        )
    _add_tokens(table, file)
    table.json = json.dumps(file, ensure_ascii=False) if changed else None
    return table


# -- the two kinds --------------------------------------------------------------------------------


def _byte_level(
    path: Path, file: Mapping[str, Any], texts: dict[int, str], merges: list[tuple[str, str]]
) -> TokenTable:
    for left, right in merges:
        if " " in left + right:
            raise UnsupportedError(f"{path}: the merge of {left!r} and {right!r} has a space in it")
    pipeline = _pipeline(path, file)
    ignores_merges = bool(file["model"].get("ignore_merges"))
    split, is_equal = find_split(pipeline.pre_tokenizer, ignores_merges)
    table = TokenTable(path, "gpt2", split.name, texts)
    table.merges = [f"{left} {right}" for left, right in merges]
    table.limits = split.limits() if is_equal else [UNEQUAL["split"]]
    if split.ignores_merges != ignores_merges and _has_unreached(texts, merges):
        table.limits.append(UNEQUAL["merges"])
    unk = file["model"].get("unk_token")
    table.unk = next((i for i, text in texts.items() if text == unk), None)
    missing = missing_bytes(set(texts.values()))
    if missing:
        table.limits.append(
            Limit(
                f"the vocabulary has no token for the bytes {missing.hex(' ')}, and llama.cpp does not "
                "join what is around them",
                applies=lambda text: any(byte in missing for byte in text.encode()),
            )
        )
    _watch_normalizer(table, _parts(path, file, "normalizer", "normalizers"))
    return table


def _sentencepiece(
    path: Path,
    file: Mapping[str, Any],
    texts: dict[int, str],
    merges: list[tuple[str, str]],
    pre_tokenizers: list[dict[str, Any]],
) -> TokenTable:
    ids = {text: token_id for token_id, text in texts.items()}
    lacking = [byte for byte in BYTES if byte not in ids]
    if lacking:
        raise UnsupportedError(
            f"{path}: the vocabulary lacks {lacking[0]} and {len(lacking) - 1} more of the 256 byte "
            "tokens; llama.cpp ends the process at a character that needs one"
        )
    table = TokenTable(path, "llama", "default", texts)
    for rank, (left, right) in enumerate(merges):
        table.scores.setdefault(ids[left + right], -float(rank))
    table.kinds = {ids[byte]: TokenType.BYTE for byte in BYTES}
    table.unk = ids.get(str(file["model"].get("unk_token")))
    normalizers = _parts(path, file, "normalizer", "normalizers")
    table.space_prefix = _space_prefix(table, normalizers, pre_tokenizers)
    others = [n for n in normalizers if n.get("type") not in ("Prepend", "Replace")]
    _watch_normalizer(table, others)
    return table


def _space_prefix(
    table: TokenTable, normalizers: list[dict[str, Any]], pre_tokenizers: list[dict[str, Any]]
) -> bool:
    """Whether a space goes before a text, with the limits of the ways in which files say so."""
    prepends = [n.get("prepend") for n in normalizers if n.get("type") == "Prepend"]
    replaces = [(n.get("pattern"), n.get("content")) for n in normalizers if n.get("type") == "Replace"]
    metaspaces = [p for p in pre_tokenizers if p.get("type") == "Metaspace"]
    harmless = {"String": " "}  # a Split at spaces, of which there are none any more
    splits = [p for p in pre_tokenizers if p not in metaspaces]
    if any(p.get("type") != "Split" or p.get("pattern") != harmless or metaspaces for p in splits):
        table.limits.append(UNEQUAL["split"])
    if _SPACES in replaces and not metaspaces:
        if replaces != [_SPACES] or prepends not in ([], [SPACE]):
            table.limits.append(UNEQUAL["spaces"])
        return bool(prepends)
    if len(metaspaces) != 1 or replaces or prepends or metaspaces[0].get("replacement", SPACE) != SPACE:
        raise UnsupportedError(f"{table.path}: its way of writing spaces has no equal in llama.cpp")
    return _metaspace_prefix(table, metaspaces[0])


def _metaspace_prefix(table: TokenTable, metaspace: Mapping[str, Any]) -> bool:
    scheme = _scheme(metaspace)
    if scheme == "never":
        return False
    reason = "puts a space before a text that begins with one, too"
    if scheme == "first":
        reason += ", and after every special token instead of before a whole text only"
    table.limits.append(Limit(f"llama.cpp {reason}", _prefix_always))
    return True


def _prefix_always(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normal.Sequence([normal.Prepend(SPACE), normal.Replace(" ", SPACE)])


# -- parts of the file ----------------------------------------------------------------------------


def _section(path: Path, values: Mapping[str, Any], key: str) -> dict[str, Any]:
    section = values.get(key)
    if not isinstance(section, dict):
        raise CheckpointError(f"{path}: {key} must be a table, not {section!r:.80}")
    return section


def _parts(path: Path, file: Mapping[str, Any], key: str, members: str) -> list[dict[str, Any]]:
    """Return the steps of a pipeline, those of a Sequence one by one."""
    flat: list[dict[str, Any]] = []
    waiting = [file.get(key)]
    while waiting:
        part = waiting.pop(0)
        if part is None:
            continue
        if not isinstance(part, dict):
            raise CheckpointError(f"{path}: {key} holds {part!r:.80} where a table is needed")
        if part.get("type") != "Sequence":
            flat.append(part)
            continue
        inner = part.get(members)
        if not isinstance(inner, list):
            raise CheckpointError(f"{path}: a Sequence in {key} has no list of {members}")
        waiting[:0] = inner
    return flat


def _refuse_settings(path: Path, model: Mapping[str, Any]) -> None:
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise UnsupportedError(f"{path}: {key} is {model[key]!r}, which llama.cpp does not have")


def _merges(path: Path, model: Mapping[str, Any], vocabulary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the merges, which are pairs or, in older files, texts with a space in the middle."""
    entries = model.get("merges")
    if not isinstance(entries, list):
        raise CheckpointError(f"{path}: merges must be a list, not {entries!r:.80}")
    merges: list[tuple[str, str]] = []
    for entry in entries:
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair)):
            raise CheckpointError(f"{path}: the merge {entry!r:.80} is no pair of tokens")
        left, right = pair
        for token in (left, right, left + right):
            if token not in vocabulary:
                raise CheckpointError(
                    f"{path}: the merge of {left!r} and {right!r} needs {token!r}, which is no token"
                )
        merges.append((left, right))
    return merges


def _add_tokens(table: TokenTable, file: Mapping[str, Any]) -> None:
    entries = file.get("added_tokens") or []
    if not isinstance(entries, list):
        raise CheckpointError(f"{table.path}: added_tokens must be a list, not {entries!r:.80}")
    ids = {text: token_id for token_id, text in table.texts.items()}
    for entry in entries:
        token_id, token = read_added(table.path, entry)
        if ids.setdefault(token.text, token_id) != token_id:
            raise CheckpointError(
                f"{table.path}: {token.text!r} has the id {ids[token.text]} and, as an added token, "
                f"{token_id}"
            )
        table.add(token_id, token)


# -- what llama.cpp does not do -------------------------------------------------------------------


def _pipeline(path: Path, file: Mapping[str, Any]) -> Any:
    """Return the file's normalizer and pre-tokenizer around an empty vocabulary."""
    parts = {key: file.get(key) for key in ("normalizer", "pre_tokenizer")}
    empty: dict[str, Any] = {
        "model": {"type": "BPE", "vocab": {}, "merges": []},
        "added_tokens": [],
        **parts,
    }
    try:
        return Tokenizer.from_str(json.dumps(empty))
    except Exception as error:  # the library raises nothing more precise
        raise CheckpointError(f"{path}: the tokenizers library does not understand it: {error}") from error


def _watch_normalizer(table: TokenTable, normalizers: list[dict[str, Any]]) -> None:
    kinds = [str(part.get("type")) for part in normalizers]
    if kinds == ["NFC"] and table.model == "gpt2":
        reason = "llama.cpp does not compose characters first (NFC): give it texts that are composed"
        table.limits.append(Limit(reason, _drop_normalizer))
    elif kinds:
        table.limits.append(UNEQUAL["normalizer"])


def _drop_normalizer(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = None


def _has_unreached(texts: Mapping[int, str], merges: list[tuple[str, str]]) -> bool:
    """Whether only the rule "a word that is a token is that token" makes some token.

    llama.cpp ties that rule to the pre-tokenizer's name. Where the merges reach every token it is idle.
    """
    reached = Tokenizer.from_str(json.dumps({"model": {
        "type": "BPE", "vocab": {text: i for i, text in texts.items()}, "merges": [list(m) for m in merges],
    }}))  # fmt: skip
    encodings = reached.encode_batch(list(texts.values()))
    return any(
        encoding.ids != [token_id] and len(texts[token_id]) > 1
        for encoding, token_id in zip(encodings, texts, strict=True)
    )


# -- a space before a text --------------------------------------------------------------------------


def _set_prefix_space(path: Path, file: dict[str, Any], wanted: bool) -> bool:
    """Change how a file puts a space before a text; return whether anything changed."""
    before = json.dumps([file.get("normalizer"), file.get("pre_tokenizer")])
    steps = _parts(path, file, "pre_tokenizer", "pretokenizers")
    byte_level = [step for step in steps if step.get("type") == "ByteLevel"]
    for step in byte_level:
        step["add_prefix_space"] = wanted
    if not byte_level:
        _set_metaspace(path, file, steps, wanted)
    return before != json.dumps([file.get("normalizer"), file.get("pre_tokenizer")])


def _set_metaspace(path: Path, file: dict[str, Any], steps: list[dict[str, Any]], wanted: bool) -> None:
    metaspaces = [step for step in steps if step.get("type") == "Metaspace"]
    normalizers = _parts(path, file, "normalizer", "normalizers")
    prepends = [step for step in normalizers if step.get("type") == "Prepend"]
    has_prefix = bool(prepends) or any(_scheme(step) != "never" for step in metaspaces)
    if has_prefix == wanted:
        return
    for step in metaspaces:
        step.pop("add_prefix_space", None)
        step["prepend_scheme"] = "first" if wanted else "never"
    kept = [step for step in normalizers if step not in prepends]
    if wanted and not metaspaces:
        kept.insert(0, {"type": "Prepend", "prepend": SPACE})
    file["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    decoders = [d for d in _parts(path, file, "decoder", "decoders") if d.get("type") != "Strip"]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    file["decoder"] = {"type": "Sequence", "decoders": [*decoders, *([strip] if wanted else [])]}


def _scheme(metaspace: Mapping[str, Any]) -> str:
    default = "always" if metaspace.get("add_prefix_space", True) else "never"
    return str(metaspace.get("prepend_scheme", default))
