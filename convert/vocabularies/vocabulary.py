"""The vocabulary of a checkpoint, as a GGUF file has it.

tokenizer.json is what transformers runs, and what a fine-tune's added tokens are in, so it decides where
there is one; tokenizer.model and tiktoken.model are read where there is none.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer

from convert.errors import CheckpointError, UnsupportedError
from convert.gguf.head import Value
from convert.vocabularies.chat_template import DEFAULT, read_chat_templates
from convert.vocabularies.embedded import KEY, SPLITS_SPECIAL
from convert.vocabularies.end_of_generation import EndOfGeneration, changed_by_llama_cpp, end_of_generation
from convert.vocabularies.oracle import around, load_oracle, put_around
from convert.vocabularies.sentencepiece import read_sentencepiece
from convert.vocabularies.special_ids import SpecialIds
from convert.vocabularies.tiktoken import read_tiktoken
from convert.vocabularies.token_table import UNEQUAL, AddedToken, Limit, TokenTable
from convert.vocabularies.tokenizer_config import TokenizerConfig
from convert.vocabularies.tokenizer_json import UNREACHED, read_tokenizer_json

logger = logging.getLogger("convert")

PHI3 = re.compile("phi-?3", re.IGNORECASE)
PHI3_KEEPS = frozenset(("<unk>", "<s>", "<|endoftext|>"))


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary, ready for the ``tokenizer.*`` keys of a GGUF file.

    Attributes:
        table: the tokens as their file has them.
        oracle: the source's tokenizer, as transformers runs it.
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
    oracle: Tokenizer
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
            KEY: self.oracle.to_str(),
            SPLITS_SPECIAL: self.oracle.encode_special_tokens,
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
    settings = TokenizerConfig(directory, config.get("model_type"))
    table = read_table(directory, n_rows, settings.prefix_space())
    _check_texts(table, n_rows)
    n_own = len(table.texts)
    oracle = load_oracle(table, settings, n_rows)
    if len(table.texts) > n_own:
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
    before, after = _surround(table, oracle, settings, bos, eos)
    table.limits += _added_limits(table)
    if before not in ([], [bos]) or after not in ([], [eos]):
        table.limits.append(UNEQUAL["around"])
    if settings.splits_special:
        table.limits.append(UNEQUAL["special"])
    return Vocabulary(
        table,
        oracle,
        tokens,
        [
            table.kinds.get(i, TokenType.NORMAL) if i in table.texts else TokenType.UNUSED
            for i in range(n_rows)
        ],
        bos,
        end_of_generation(table.texts, eos, wanted),
        tuple(wanted),
        special.named("pad"),
        bos in before,
        eos in after,
        read_chat_templates(directory),
    )


def read_table(directory: Path, n_rows: int, prefix_space: bool | None = None) -> TokenTable:
    """Read whichever tokenizer file decides.

    Args:
        directory: the checkpoint's.
        n_rows: of the embedding.
        prefix_space: whether a space goes before a text; None if the file decides.

    Raises:
        CheckpointError: there is none, or it is malformed.
        UnsupportedError: llama.cpp cannot load such a vocabulary.
    """
    if (directory / "tokenizer.json").exists():
        return read_tokenizer_json(directory / "tokenizer.json", prefix_space)
    if (directory / "tokenizer.model").exists():
        table = read_sentencepiece(directory / "tokenizer.model")
        table.space_prefix = table.space_prefix if prefix_space is None else prefix_space
        return table
    if (directory / "tiktoken.model").exists():
        return read_tiktoken(directory / "tiktoken.model", n_rows)
    raise CheckpointError(
        f"{directory} has no tokenizer: none of tokenizer.json, tokenizer.model and tiktoken.model"
    )


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


def _surround(
    table: TokenTable, oracle: Tokenizer, config: TokenizerConfig, bos: int | None, eos: int
) -> tuple[list[int], list[int]]:
    """Let the oracle put around a text what transformers does; return the ids before and after it.

    tokenizer.json says it. The settings add_bos_token and add_eos_token act where there is none.
    """
    flags = config.flag("add_bos_token"), config.flag("add_eos_token")
    adds = config.tokenizer_class.adds
    if adds != "file" or table.path.suffix != ".json":
        is_default = adds == "bos" or (adds == "file" and table.model == "llama")
        adds_bos = is_default if adds != "file" or flags[0] is None else flags[0]
        adds_eos = bool(flags[1]) and adds == "file"
        put_around(oracle, [bos] if adds_bos and bos is not None else [], [eos] if adds_eos else [])
    before, after = around(oracle, str(table.path))
    for name, flag, ids in (("add_bos_token", flags[0], before), ("add_eos_token", flags[1], after)):
        if flag is not None and flag != bool(ids):
            logger.warning(
                "%s: %s is %s and does not act: %s decides what goes around a text, as in transformers 5",
                *(config.path, name, str(flag).lower(), table.path.name),
            )
    return before, after


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
    if any(token.is_word for token in table.added.values()):
        limits.append(UNEQUAL["words"])
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
