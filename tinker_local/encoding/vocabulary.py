"""Tokens and their ids: ids to text, tokens by name, and the special ones."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, SupportsIndex, overload

from tinker_local.encoding.options import refuse
from tinker_local.errors import BadRequestError, shown
from tinker_local.llama.model import Model


class Vocabulary:
    """The tokens of a model file."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._pad_token_id = model.special_token("pad")

    @property
    def name_or_path(self) -> str:
        """Path of the model file that has the vocabulary."""
        return str(self._model.path)

    @property
    def vocab_size(self) -> int:
        """Number of token ids; valid ids are below it."""
        return self._model.n_vocab

    def __len__(self) -> int:
        return self._model.n_vocab

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text (BOS); None if the file names none and adds none."""
        return self._model.special_token("bos")

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a text or a turn (EOS); None if the file names none and adds none."""
        return self._model.special_token("eos")

    @property
    def unk_token_id(self) -> int | None:
        """Id of the token for unknown text, None if the file names none."""
        return self._model.special_token("unk")

    @property
    def pad_token_id(self) -> int | None:
        """Id of the padding token, None if the file names none; it can be set."""
        return self._pad_token_id

    @pad_token_id.setter
    def pad_token_id(self, token_id: int | None) -> None:
        self._pad_token_id = None if token_id is None else self._check(token_id)

    @property
    def bos_token(self) -> str | None:
        """``bos_token_id`` as text."""
        return self._text(self.bos_token_id)

    @property
    def eos_token(self) -> str | None:
        """``eos_token_id`` as text."""
        return self._text(self.eos_token_id)

    @property
    def unk_token(self) -> str | None:
        """``unk_token_id`` as text."""
        return self._text(self.unk_token_id)

    @property
    def pad_token(self) -> str | None:
        """``pad_token_id`` as text; it can be set to a token, such as ``eos_token``."""
        return self._text(self.pad_token_id)

    @pad_token.setter
    def pad_token(self, token: str | None) -> None:
        if token is not None and token not in self._ids:
            raise BadRequestError(f"pad_token {shown(token)} is no token of this vocabulary")
        self._pad_token_id = None if token is None else self._ids[token]

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The special tokens that there are, by name: ``bos_token``, ``eos_token``, ..."""
        named = {
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "unk_token": self.unk_token,
            "pad_token": self.pad_token,
        }
        return {name: token for name, token in named.items() if token is not None}

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of all tokens that ``skip_special_tokens`` leaves out, those with names first."""
        named = [self._ids[token] for token in self.special_tokens_map.values()]
        return list(dict.fromkeys([*named, *self._special]))

    @property
    def all_special_tokens(self) -> list[str]:
        """``all_special_ids`` as texts."""
        return [self._model.token_text(token) for token in self.all_special_ids]

    def get_vocab(self) -> dict[str, int]:
        """Return the id of each token by its text."""
        return dict(self._ids)

    def get_added_vocab(self) -> dict[str, int]:
        """Return the ids of tokens that were added to those that were trained, special or not."""
        return {token: i for token, i in self._ids.items() if self._model.is_added(i)}

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...

    @overload
    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int | None]: ...

    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | list[int | None] | None:
        """Return the id of a token as the vocabulary writes it (``Ġthe``), or a list of them for a list.

        A text that is no token has the id of the token for unknown text, or None.
        """
        unknown = self.unk_token_id  # which the file is asked for each time
        if isinstance(tokens, str):
            return self._ids.get(tokens, unknown)
        return [self._ids.get(token, unknown) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Return the vocabulary's text of an id, or a list of them for a list of ids.

        Args:
            ids: one id or several.
            skip_special_tokens: leave out special tokens from a list.
        """
        ids = _as_python(ids)
        if not hasattr(ids, "__iter__"):
            return self._model.token_text(self._check(ids))
        tokens = [self._check(token) for token in ids]
        return [
            self._model.token_text(token)
            for token in tokens
            if not (skip_special_tokens and self._model.is_special(token))
        ]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Return the text of tokens as the vocabulary writes them.

        Raises:
            BadRequestError: one is no token of this vocabulary.
        """
        for token in tokens:
            if token not in self._ids:
                raise BadRequestError(f"{shown(token)} is no token of this vocabulary")
        return self._decode([self._ids[token] for token in tokens], skip_special_tokens=False)

    @overload
    def decode(
        self, token_ids: SupportsIndex | Sequence[int], skip_special_tokens: bool = False, **options: Any
    ) -> str: ...

    @overload
    def decode(
        self, token_ids: Sequence[Sequence[int]], skip_special_tokens: bool = False, **options: Any
    ) -> list[str]: ...

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **options: Any) -> str | list[str]:
        """Return the text of token ids: a list, an array, or one id. A batch gives a list of texts.

        Bytes that are not UTF-8, such as half a character at the end, become U+FFFD.

        Args:
            token_ids: the ids, or what calling the tokenizer returns.
            skip_special_tokens: leave out special tokens.
            **options: ``clean_up_tokenization_spaces``, ``spaces_between_special_tokens`` and
                ``use_source_tokenizer`` of transformers, at values that change nothing.

        Raises:
            BadRequestError: an id is not an int of this vocabulary, or an argument is not known or would
                change the text.
        """
        refuse(options, "decode")
        if isinstance(token_ids, Mapping):
            token_ids = token_ids["input_ids"]
        token_ids = _as_python(token_ids)
        if not hasattr(token_ids, "__iter__"):
            token_ids = [token_ids]
        token_ids = list(token_ids)
        if token_ids and hasattr(token_ids[0], "__len__") and not isinstance(token_ids[0], str):
            return [self._decode(sequence, skip_special_tokens) for sequence in token_ids]
        return self._decode(token_ids, skip_special_tokens)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **options: Any) -> list[str]:
        """Return the text of each sequence of token ids; arguments are those of ``decode``."""
        if isinstance(sequences, Mapping):
            sequences = sequences["input_ids"]
        sequences = list(_as_python(sequences))
        texts = self.decode(sequences, skip_special_tokens, **options) if sequences else []
        return [texts] if isinstance(texts, str) else texts

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a token, its leading space included; of a control token, its name.

        A token may be part of a character, so that only several tokens together are text.

        Raises:
            BadRequestError: ``token_id`` is not an id of this vocabulary.
        """
        return self._model.piece(self._check(token_id))

    def _decode(self, token_ids: Iterable[Any], skip_special_tokens: bool) -> str:
        tokens = [self._check(token) for token in token_ids]
        text = self._model.detokenize(tokens, skip_special=skip_special_tokens)
        return text.decode("utf-8", "replace")

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {self._model.token_text(token): token for token in range(self.vocab_size)}

    @cached_property
    def _special(self) -> list[int]:
        return [token for token in range(self.vocab_size) if self._model.is_special(token)]

    def _text(self, token: int | None) -> str | None:
        return None if token is None else self._model.token_text(token)

    def _check(self, token: Any) -> int:
        try:
            value = operator.index(token)
        except TypeError:
            raise BadRequestError(f"token id {shown(token)} is not an int") from None
        if not 0 <= value < self.vocab_size:
            raise BadRequestError(
                f"token id {shown(value)} is outside the vocabulary: ids are 0 to {self.vocab_size - 1}"
            )
        return value


def _as_python(ids: Any) -> Any:
    """Return arrays and tensors as lists or numbers."""
    return ids.tolist() if callable(getattr(ids, "tolist", None)) else ids
