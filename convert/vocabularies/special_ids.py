"""The tokens that begin, end and pad a text, from tokenizer_config.json and the files around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convert.errors import CheckpointError
from convert.files.json_file import read_json_if_any

_WITHOUT_BOS = ("PreTrainedTokenizer", "Qwen2Tokenizer", "TokenizersBackend")
"""Classes of transformers that have a BOS only if the files name one."""


class SpecialIds:
    """The files that name special tokens, in order of authority.

    Args:
        directory: the checkpoint's.
        config: the whole config.json.
        texts: the tokenizer's tokens by id.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any], texts: Mapping[int, str]) -> None:
        self.tokenizer_config = read_json_if_any(directory / "tokenizer_config.json")
        self._by_text = {text: token_id for token_id, text in texts.items()}
        self._texts = texts
        self._names = {
            directory / "tokenizer_config.json": self.tokenizer_config,
            directory / "special_tokens_map.json": read_json_if_any(directory / "special_tokens_map.json"),
        }
        self._ids: dict[Path, Mapping[str, Any]] = {
            directory / "generation_config.json": read_json_if_any(directory / "generation_config.json"),
            directory / "config.json": config,
        }
        text_config = config.get("text_config")
        if isinstance(text_config, Mapping):
            self._ids[directory / "config.json: text_config"] = text_config

    def named(self, name: str) -> int | None:
        """Return the id of "bos", "eos" or "pad" as transformers' tokenizer has it; None if there is none.

        The tokenizer's own files decide, and ``null`` there means none, whatever id config.json has: the
        published files of Qwen say so. Where they are silent, transformers takes the token that the
        tokenizer's class is written with. The id of a config stands in for it, except for classes without.

        Raises:
            CheckpointError: the text or id is no token.
        """
        for path, values in self._names.items():
            if f"{name}_token" not in values:
                continue
            token = values[f"{name}_token"]
            text = token.get("content") if isinstance(token, Mapping) else token
            if text is None:
                return None
            if not isinstance(text, str) or text not in self._by_text:
                raise CheckpointError(
                    f"{path}: {name}_token is {text!r}, which is no token of the tokenizer"
                )
            return self._by_text[text]
        tokenizer_class = str(self.tokenizer_config.get("tokenizer_class")).removesuffix("Fast")
        ids = [] if name == "bos" and tokenizer_class in _WITHOUT_BOS else self.ids(name)
        return ids[0] if ids else None

    def ids(self, name: str) -> list[int]:
        """Return the ids of the first config that has any: ``eos_token_id`` may be a list.

        Raises:
            CheckpointError: an id is no token.
        """
        for path, values in self._ids.items():
            value = values.get(f"{name}_token_id")
            ids: list[Any] = value if isinstance(value, list) else [value]
            if value is None or value == -1:  # -1 is how older configs say none
                continue
            for token_id in ids:
                if (
                    isinstance(token_id, bool)
                    or not isinstance(token_id, int)
                    or token_id not in self._texts
                ):
                    raise CheckpointError(
                        f"{path}: {name}_token_id is {token_id!r}, which is no token of the tokenizer"
                    )
            return ids
        return []
