"""The vocabulary of a checkpoint, as a GGUF file has it.

tokenizer.json is what transformers runs, and what a fine-tune's added tokens are in, so it decides where
there is one; tokenizer.model and tiktoken.model are read where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer

from convert.errors import CheckpointError, UnsupportedError
from convert.files.json_file import read_json_if_any
from convert.gguf.head import Value
from convert.vocabularies.chat_template import DEFAULT, read_chat_templates
from convert.vocabularies.end_of_generation import EndOfGeneration, changed_by_llama_cpp, end_of_generation
from convert.vocabularies.sentencepiece import read_sentencepiece
from convert.vocabularies.special_ids import SpecialIds
from convert.vocabularies.tiktoken import read_tiktoken
from convert.vocabularies.token_table import AddedToken, Limit, TokenTable
from convert.vocabularies.tokenizer_json import UNREACHED, read_added, read_tokenizer_json

PHI3 = re.compile("phi-?3", re.IGNORECASE)
PHI3_KEEPS = frozenset(("<unk>", "<s>", "<|endoftext|>"))


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary, ready for the ``tokenizer.*`` keys of a GGUF file.

    Attributes:
        table: the tokens as their file has them.
        tokens: the text of every row of the embedding; rows that no token has are filled up.
        kinds: of the tokens.
        bos: the token that begins a text; None if the vocabulary has none.
        end: the tokens that end a generation.
        generation_ids: those of them that generation_config.json asks for.
        pad: the token for padding.
        adds_bos, adds_eos: whether they are put around a text.
        chat_templates: by name.
    """

    table: TokenTable
    tokens: list[str]
    kinds: list[TokenType]
    bos: int | None
    end: EndOfGeneration
    generation_ids: tuple[int, ...]
    pad: int | None
    adds_bos: bool
    adds_eos: bool
    chat_templates: dict[str, str]

    def metadata(self) -> dict[str, Value]:
        """Return the keys and values; ``tokenizer.ggml.token_type`` must be written as int32."""
        table = self.table
        values: dict[str, Value] = {
            "tokenizer.ggml.model": table.model,
            "tokenizer.ggml.pre": table.pre,
            "tokenizer.ggml.tokens": self.tokens,
            "tokenizer.ggml.token_type": [int(kind) for kind in self.kinds],
            "tokenizer.ggml.eos_token_id": self.end.eos,
            "tokenizer.ggml.add_bos_token": self.adds_bos,
            "tokenizer.ggml.add_eos_token": self.adds_eos,
        }
        if table.model == "gpt2":
            values["tokenizer.ggml.merges"] = table.merges
        else:
            values["tokenizer.ggml.scores"] = [
                table.scores.get(token_id, UNREACHED) for token_id in range(len(self.tokens))
            ]
            values["tokenizer.ggml.add_space_prefix"] = table.space_prefix
            values["tokenizer.ggml.remove_extra_whitespaces"] = False
        # Without BOS there is no key, as in files of llama.cpp's converter. llama.cpp then has a default
        # of its own (11 in byte-level vocabularies) and never adds it, since add_bos_token is false. EOS in
        # its place would be a false statement, and a template would write it.
        others = {
            "bos": self.bos,
            "eot": self.end.eot,
            "eom": self.end.eom,
            "unknown": table.unk,
            "padding": self.pad,
        }
        values |= {f"tokenizer.ggml.{name}_token_id": i for name, i in others.items() if i is not None}
        for name, template in self.chat_templates.items():
            values["tokenizer.chat_template" + ("" if name == DEFAULT else f".{name}")] = template
        named = [name for name in self.chat_templates if name != DEFAULT]
        if named:
            values["tokenizer.chat_templates"] = named
        return values

    def fitting_name(self, name: str) -> str:
        """Return the name to write as ``general.name``.

        llama.cpp takes a model whose name has "phi-3" in it for one whose special tokens swallow the spaces
        after them, and does so for no other; the name must say what the tokenizer does.
        """
        swallow = {token.text for token in self.table.added.values() if token.strips_right}
        special = {token.text for token in self.table.added.values()}
        is_phi3 = bool(swallow) and PHI3_KEEPS | {"</s>"} <= special and swallow == special - PHI3_KEEPS
        if is_phi3 and not PHI3.search(name):
            return f"{name} (Phi-3)"
        return name if is_phi3 else PHI3.sub("Phi 3", name)


def read_vocabulary(directory: Path, config: Mapping[str, Any], n_rows: int) -> Vocabulary:
    """Read the vocabulary of a checkpoint.

    Args:
        directory: the checkpoint's.
        config: the whole config.json.
        n_rows: of the embedding: the number of ids there can be.

    Raises:
        CheckpointError: a file is missing or malformed, or files disagree.
        UnsupportedError: llama.cpp cannot do what they say.
    """
    table = read_table(directory, n_rows)
    _check_texts(table, n_rows)
    special = SpecialIds(directory, config, table.texts)
    wanted = special.ids("eos")
    eos = special.named("eos")
    if eos is None and wanted:
        eos = wanted[0]  # a generation must end, whatever the tokenizer's files leave out
    if eos is None:
        raise CheckpointError(f"{directory}: no file names the eos_token; say it in tokenizer_config.json")
    bos = special.named("bos")
    tokens = _rows(table, n_rows)
    adds_bos, adds_eos = _adds(table, special, bos, eos)
    table.limits += _added_limits(table)
    return Vocabulary(
        table,
        tokens,
        [
            table.kinds.get(i, TokenType.NORMAL) if i in table.texts else TokenType.UNUSED
            for i in range(n_rows)
        ],
        bos,
        end_of_generation(table.texts, eos, wanted),
        tuple(wanted),
        special.named("pad"),
        adds_bos,
        adds_eos,
        read_chat_templates(directory),
    )


def read_table(directory: Path, n_rows: int) -> TokenTable:
    """Read whichever tokenizer file decides, and the tokens that tokenizer_config.json adds to it.

    Raises:
        CheckpointError: there is none, or it is malformed.
        UnsupportedError: llama.cpp cannot do what it says.
    """
    if (directory / "tokenizer.json").exists():
        table = read_tokenizer_json(directory / "tokenizer.json")
    elif (directory / "tokenizer.model").exists():
        table = read_sentencepiece(directory / "tokenizer.model")
    elif (directory / "tiktoken.model").exists():
        return read_tiktoken(directory / "tiktoken.model", n_rows)
    else:
        raise CheckpointError(
            f"{directory} has no tokenizer: none of tokenizer.json, tokenizer.model and tiktoken.model"
        )
    for token_id, token in _configured(directory).items():
        is_known = token_id in table.added and table.path.suffix == ".json"
        if not is_known or table.texts[token_id] != token.text:
            table.add(token_id, token)
    return table


def _configured(directory: Path) -> dict[int, AddedToken]:
    """Return the tokens that are added beside the tokenizer's own file."""
    tokens: dict[int, AddedToken] = {}
    path = directory / "added_tokens.json"
    for text, token_id in read_json_if_any(path).items():
        token_id, token = read_added(path, {"content": text, "normalized": False}, token_id)
        tokens[token_id] = token
    path = directory / "tokenizer_config.json"
    named = read_json_if_any(path).get("added_tokens_decoder") or {}
    if not isinstance(named, dict):
        raise CheckpointError(f"{path}: added_tokens_decoder must be a table, not {named!r:.80}")
    for key, entry in named.items():
        if not key.isdecimal():
            raise CheckpointError(f"{path}: {key!r} in added_tokens_decoder is no id")
        token_id, token = read_added(path, entry, int(key))
        tokens[token_id] = token
    return tokens


def _check_texts(table: TokenTable, n_rows: int) -> None:
    """Refuse vocabularies on which llama.cpp would end the process, or which it would misread."""
    beyond = max(table.texts)
    if beyond >= n_rows:
        raise CheckpointError(
            f"{table.path}: the token {table.texts[beyond]!r} has the id {beyond}, and the model has rows "
            f"for ids below {n_rows}: tokenizer and weights are not of the same model"
        )
    seen: dict[str, int] = {}
    for token_id, text in table.texts.items():
        if seen.setdefault(text, token_id) != token_id:
            raise CheckpointError(f"{table.path}: {text!r} has two ids, {seen[text]} and {token_id}")
        if "\x00" in text:
            raise UnsupportedError(
                f"{table.path}: llama.cpp cuts off the token {text!r} at its null character"
            )
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise CheckpointError(f"{table.path}: the token {text!r} cannot be written in UTF-8")


def _rows(table: TokenTable, n_rows: int) -> list[str]:
    """Return a text for every row of the embedding; rows without a token get a placeholder."""
    taken = set(table.texts.values())
    rows = []
    for token_id in range(n_rows):
        text = table.texts.get(token_id)
        if text is None:
            text = f"[PAD{token_id}]"
            while text in taken:
                text += "_"
        rows.append(text)
    return rows


def _adds(table: TokenTable, special: SpecialIds, bos: int | None, eos: int) -> tuple[bool, bool]:
    """Return whether BOS and EOS are put around a text: tokenizer_config.json decides, else the file."""
    flags = special.flag("add_bos_token"), special.flag("add_eos_token")
    if flags != (None, None):
        return bool(flags[0]) and bos is not None, bool(flags[1])
    if table.before is None or table.after is None:
        return table.model == "llama" and table.path.suffix == ".model" and bos is not None, False
    if table.before not in ([], [bos]) or table.after not in ([], [eos]):
        texts = [[table.texts.get(i, i) for i in ids] for ids in (table.before, table.after)]
        raise UnsupportedError(
            f"{table.path}: it puts {texts[0]} before a text and {texts[1]} after it; llama.cpp can put "
            "only BOS before and EOS after"
        )
    return bool(table.before), bool(table.after)


def _added_limits(table: TokenTable) -> list[Limit]:
    """Return the limits of added tokens: llama.cpp looks for them in the text as it is."""
    strip = [token for token in table.added.values() if token.strips_left or token.strips_right]
    normalized = [token for token in table.added.values() if token.is_normalized]
    limits = []
    if strip:
        reason = "llama.cpp does not drop the spaces beside some special tokens (but after those of Phi-3)"
        limits.append(Limit(reason, lambda tokenizer: _find_plainly(tokenizer, strip)))
    if normalized:
        reason = "llama.cpp looks for added tokens before it puts a space in front"
        limits.append(Limit(reason, lambda tokenizer: _find_plainly(tokenizer, normalized)))
    return limits


def _find_plainly(tokenizer: Tokenizer, tokens: Iterable[AddedToken]) -> None:
    for token in tokens:
        token.add_to(tokenizer, plainly=True)


def plain_limits(vocabulary: Vocabulary) -> list[Limit]:
    """Return where llama.cpp differs when special tokens are to be read as plain text."""
    changed = changed_by_llama_cpp(vocabulary.table.texts.values())
    return [
        Limit(
            "llama.cpp decides by some tokens' text whether they are special",
            applies=lambda text: any(token in text for token in changed),
        )
    ]


__all__ = ["Vocabulary", "read_vocabulary"]
