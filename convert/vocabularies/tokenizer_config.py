"""tokenizer_config.json: settings beside a tokenizer's own file that change the ids of a text.

The rules are those of transformers 5.24, and tests/parity/test_tokenizer_config.py compares them. One thing
is that of version 4.57: the pipeline is tokenizer.json's, with which models are trained. Version 5 makes it
anew for some classes, and then splits some texts otherwise (LlamaTokenizer: spaces at the start;
GPT2Tokenizer: digits of other scripts).

Version 4 differs in three things. ``add_bos_token`` and ``add_eos_token`` act for LlamaTokenizer,
GemmaTokenizer, CohereTokenizer and GPTNeoXTokenizer, whatever tokenizer.json says. ``add_prefix_space``
acts for every class with a bare ByteLevel, and not for Qwen2Tokenizer. Decoded texts lose spaces before
punctuation (``clean_up_tokenization_spaces``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.errors import CheckpointError, UnsupportedError
from convert.files.json_file import read_json_if_any
from convert.vocabularies.token_table import AddedToken

NEUTRAL: dict[str, tuple[Any, ...]] = {"fix_mistral_regex": (None, False)}
"""Settings that change ids and are not read here, with the values that change nothing."""


@dataclass(frozen=True)
class TokenizerClass:
    """What a class of transformers does beside its files.

    Attributes:
        tokens: special tokens that it has where the files name none.
        prefixes: what decides whether a space goes before a text: "file", "given" (add_prefix_space where
            it is given, else the file), or "setting" (add_prefix_space, which is false if missing).
        adds: what it puts around a text: "file" (what tokenizer.json says), "bos" or "nothing".
    """

    tokens: Mapping[str, str]
    prefixes: str = "file"
    adds: str = "file"


_LLAMA = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_GPT2 = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
_QWEN2 = dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>")
_GEMMA = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}

CLASSES: dict[str, TokenizerClass] = {
    "LlamaTokenizer": TokenizerClass(_LLAMA, "given"),
    "CodeLlamaTokenizer": TokenizerClass(_LLAMA, "given", "bos"),
    "GemmaTokenizer": TokenizerClass(_GEMMA),
    "GPT2Tokenizer": TokenizerClass(_GPT2, "setting"),
    "GPTNeoXTokenizer": TokenizerClass(_GPT2, "setting", "nothing"),
    "Qwen2Tokenizer": TokenizerClass(_QWEN2, "setting"),
    "Qwen3_5Tokenizer": TokenizerClass(_QWEN2, "setting"),
}
"""By name, without ``Fast``."""
PLAIN = TokenizerClass({})
"""Every other class: PreTrainedTokenizerFast, TokenizersBackend, unknown ones."""
_NAME = re.compile(r"(?!add_)\w+_token")  # such as bos_token
_KNOWN = ("bos_token", "eos_token", "pad_token")
_AS_THE_FILE_SAYS = frozenset(("granite", "mistral", "mixtral", "olmo2", "phi3"))
"""Model types whose tokenizers are of no class but TokenizersBackend, whatever the file names."""


class TokenizerConfig:
    """The settings beside a tokenizer's own file.

    Args:
        directory: the checkpoint's.
        model_type: of config.json.

    Raises:
        CheckpointError: a file is malformed.
        UnsupportedError: a setting changes ids in a way that is not known here; the message names it.
    """

    def __init__(self, directory: Path, model_type: object = None) -> None:
        self.path = directory / "tokenizer_config.json"
        self.values = read_json_if_any(self.path)
        for key, neutral in NEUTRAL.items():
            if self.values.get(key) not in neutral:
                raise UnsupportedError(
                    f"{self.path}: {key} is {self.values[key]!r}, which changes the ids of texts in a way "
                    "that is not known here"
                )
        if "added_tokens_decoder" not in self.values:  # as older versions wrote it
            named = read_json_if_any(directory / "special_tokens_map.json")
            self.values = {**named, **self.values}
        self._directory = directory
        name = str(self.values.get("tokenizer_class")).removesuffix("Fast")
        self.tokenizer_class = PLAIN if str(model_type) in _AS_THE_FILE_SAYS else CLASSES.get(name, PLAIN)

    @property
    def splits_special(self) -> bool:
        """Whether special tokens in a text are read as plain text."""
        return bool(self.flag("split_special_tokens"))

    def flag(self, name: str) -> bool | None:
        """Return a boolean, None if it is missing. Raises CheckpointError if it is something else."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise CheckpointError(f"{self.path}: {name} must be true or false, not {value!r:.80}")
        return value

    def prefix_space(self) -> bool | None:
        """Return whether a space goes before a text; None where the tokenizer's own file decides."""
        given = self.flag("add_prefix_space")
        if self.tokenizer_class.prefixes == "setting":
            return bool(given)
        return given if self.tokenizer_class.prefixes == "given" else None

    def added(self) -> dict[int, AddedToken]:
        """Return the tokens that are added, or changed, beside the tokenizer's own file, by id.

        Raises:
            CheckpointError: an entry is malformed.
        """
        named = {token.text for token, _ in self.named()}
        tokens: dict[int, AddedToken] = {}
        if "added_tokens_decoder" not in self.values:
            path = self._directory / "added_tokens.json"
            for text, token_id in read_json_if_any(path).items():
                entry = {"content": text, "normalized": False, "special": text in named}
                token_id, token = read_added(path, entry, token_id)
                tokens[token_id] = token
        entries = self.values.get("added_tokens_decoder") or {}
        if not isinstance(entries, dict):
            raise CheckpointError(f"{self.path}: added_tokens_decoder must be a table, not {entries!r:.80}")
        for key, entry in entries.items():
            if not key.isdecimal():
                raise CheckpointError(f"{self.path}: {key!r} in added_tokens_decoder is no id")
            token_id, token = read_added(self.path, entry, int(key))
            tokens[token_id] = token if token.text not in named else token.as_special()
        return dict(sorted(tokens.items()))

    def named(self) -> list[tuple[AddedToken, bool]]:
        """Return the special tokens, and of each whether it may be new.

        BOS, EOS and the token for padding must be tokens already, and those that only the class names are
        special if they are tokens. The others get an id where they have none.

        Raises:
            CheckpointError: an entry is malformed.
        """
        found = [(self.values[key], key not in _KNOWN) for key in self.values if _NAME.fullmatch(key)]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = self.values.get(key) or []
            if not isinstance(more, list | dict):
                raise CheckpointError(f"{self.path}: {key} must be a list or a table, not {more!r:.80}")
            found += [(value, True) for value in (more.values() if isinstance(more, dict) else more)]
        of_class = self.tokenizer_class.tokens
        found += [(text, False) for name, text in of_class.items() if name not in self.values]
        return [
            (self._special(value), new) for value, new in found if value and isinstance(value, str | dict)
        ]

    def _special(self, value: str | dict[str, Any]) -> AddedToken:
        entry = {"content": value} if isinstance(value, str) else value
        return read_added(self.path, {"normalized": False, **entry}, 0)[1].as_special()


def read_added(path: Path, entry: object, token_id: object = None) -> tuple[int, AddedToken]:
    """Return an entry of ``added_tokens`` or of ``added_tokens_decoder``.

    Raises:
        CheckpointError: it is malformed.
    """
    if not isinstance(entry, dict):
        raise CheckpointError(f"{path}: an added token is {entry!r:.80} where a table is needed")
    token_id = entry.get("id") if token_id is None else token_id
    text = entry.get("content")
    if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0:
        raise CheckpointError(f"{path}: the added token {text!r} has the id {token_id!r}, which is no id")
    if not isinstance(text, str) or not text:
        raise CheckpointError(f"{path}: the added token {token_id} has the content {text!r}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise CheckpointError(f"{path}: the added token {text!r} cannot be written in UTF-8")
    return token_id, AddedToken(
        text,
        is_special=bool(entry.get("special", False)),
        is_normalized=bool(entry.get("normalized", True)),
        strips_left=bool(entry.get("lstrip", False)),
        strips_right=bool(entry.get("rstrip", False)),
        is_word=bool(entry.get("single_word", False)),
    )
