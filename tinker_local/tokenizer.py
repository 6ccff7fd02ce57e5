"""Tokenizer over the GGUF's own vocabulary, with the interface people know from transformers."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, SupportsIndex, overload

from tinker_local.chat_template import render, render_open
from tinker_local.errors import BadRequestError
from tinker_local.llama.model import Model

Messages = Sequence[Mapping[str, Any]]


class Tokenizer:
    """Text to token ids and back, as the model file defines it. Get one from ``get_tokenizer()``.

    Method names, arguments and defaults follow ``transformers.PreTrainedTokenizerBase``. One thing
    follows transformers 4 rather than 5: ``apply_chat_template`` returns a plain list of ids, ready
    for ``ModelInput.from_ints``, unless ``return_dict=True``.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def name_or_path(self) -> str:
        """The file that the vocabulary is in."""
        return str(self._model.path)

    @property
    def vocab_size(self) -> int:
        """Number of token ids; valid ids are below it."""
        return self._model.n_vocab

    def __len__(self) -> int:
        return self._model.n_vocab

    @property
    def bos_token_id(self) -> int | None:
        """The id that begins a text, None if the vocabulary has none."""
        return self._model.special_token("bos")

    @property
    def eos_token_id(self) -> int | None:
        """The id that ends a text or turn, None if the vocabulary has none."""
        return self._model.special_token("eos")

    @property
    def pad_token_id(self) -> int | None:
        """The id used for padding, None if the vocabulary has none."""
        return self._model.special_token("pad")

    @property
    def bos_token(self) -> str | None:
        """``bos_token_id`` as text."""
        return self._text(self.bos_token_id)

    @property
    def eos_token(self) -> str | None:
        """``eos_token_id`` as text."""
        return self._text(self.eos_token_id)

    @property
    def pad_token(self) -> str | None:
        """``pad_token_id`` as text."""
        return self._text(self.pad_token_id)

    @cached_property
    def chat_template(self) -> str | None:
        """The Jinja template of the model file, None if it has none."""
        return self._model.metadata("tokenizer.chat_template")

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text.

        Special tokens written in the text (``<|im_start|>``) become their ids.

        Args:
            text: any text.
            add_special_tokens: put BOS or EOS around it where the vocabulary says so.
        """
        if not isinstance(text, str):
            raise BadRequestError(f"encode takes a str, not {type(text).__name__} ({text!r})")
        return self._model.tokenize(text, add_special=add_special_tokens, parse_special=True)

    @overload
    def decode(
        self, token_ids: SupportsIndex | Sequence[int], skip_special_tokens: bool = False
    ) -> str: ...

    @overload
    def decode(
        self, token_ids: Sequence[Sequence[int]], skip_special_tokens: bool = False
    ) -> list[str]: ...

    def decode(self, token_ids: Any, skip_special_tokens: bool = False) -> str | list[str]:
        """Return the text of token ids (a list, an array, or one id); of a batch, a list of texts.

        Bytes that are not UTF-8, such as half of a character at the end, become U+FFFD.

        Raises:
            BadRequestError: an id is not an int of this vocabulary.
        """
        if not hasattr(token_ids, "__iter__") and hasattr(token_ids, "__index__"):
            token_ids = [token_ids]
        token_ids = list(token_ids)
        if token_ids and hasattr(token_ids[0], "__len__") and not isinstance(token_ids[0], str):
            return self.batch_decode(token_ids, skip_special_tokens)
        tokens = [self._check(token) for token in token_ids]
        text = self._model.detokenize(tokens, skip_special=skip_special_tokens)
        return text.decode("utf-8", "replace")

    def batch_decode(
        self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool = False
    ) -> list[str]:
        """Return the text of each sequence of token ids."""
        return [self.decode(list(sequence), skip_special_tokens) for sequence in sequences]

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """Return the vocabulary's entry of an id (a str), or of each in a list."""
        if hasattr(ids, "__iter__"):
            return [self._model.token_text(self._check(token)) for token in ids]
        return self._model.token_text(self._check(ids))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for, its leading space included; a control token's name.

        A token may be a part of a character: only all of them together are text.

        Raises:
            BadRequestError: it is not the id of a token.
        """
        return self._model.piece(self._check(token_id))

    @overload
    def apply_chat_template(
        self,
        conversation: Messages,
        *,
        add_generation_prompt: bool = False,
        tokenize: Literal[False],
        return_dict: bool = False,
        chat_template: str | None = None,
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> str: ...

    @overload
    def apply_chat_template(
        self,
        conversation: Messages,
        *,
        add_generation_prompt: bool = False,
        tokenize: Literal[True] = True,
        return_dict: Literal[False] = False,
        chat_template: str | None = None,
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> list[int]: ...

    @overload
    def apply_chat_template(
        self,
        conversation: Messages,
        *,
        add_generation_prompt: bool = False,
        tokenize: Literal[True] = True,
        return_dict: Literal[True],
        chat_template: str | None = None,
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> dict[str, list[int]]: ...

    def apply_chat_template(
        self,
        conversation: Messages,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_dict: bool = False,
        chat_template: str | None = None,
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> str | list[int] | dict[str, list[int]]:
        """Return a conversation as the model was trained to read it.

        Args:
            conversation: messages with "role" and "content".
            add_generation_prompt: end with the head of the assistant's turn.
            tokenize: return token ids; False returns the text.
            return_dict: return ``{"input_ids": ..., "attention_mask": ...}`` instead of the ids.
            chat_template: a template to use instead of the model file's.
            continue_final_message: end where the content of the last message ends, for the model to go on
                with it.
            **kwargs: variables for the template, such as ``tools`` or ``enable_thinking``.

        Raises:
            BadRequestError: there is no template, it fails on this conversation, or the arguments do not go
                together.
        """
        template = chat_template or self.chat_template
        if template is None:
            raise BadRequestError(
                f"{self._model.path.name} has no chat template; pass one as chat_template"
            )
        variables = {"tools": None, "documents": None, **self._special_tokens(), **kwargs}
        if continue_final_message and add_generation_prompt:
            raise BadRequestError(
                "add_generation_prompt begins a message, continue_final_message goes on with the last: "
                "give one of them"
            )
        variables["add_generation_prompt"] = add_generation_prompt
        text = (render_open if continue_final_message else render)(template, conversation, **variables)
        if not tokenize:
            return text
        ids = self.encode(text, add_special_tokens=False)  # the template writes its own
        return {"input_ids": ids, "attention_mask": [1] * len(ids)} if return_dict else ids

    def __repr__(self) -> str:
        return f"Tokenizer({self._model.path.name!r}, vocab_size={self.vocab_size})"

    def _special_tokens(self) -> dict[str, str]:
        named = {
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "pad_token": self.pad_token,
        }
        return {name: text for name, text in named.items() if text is not None}

    def _text(self, token: int | None) -> str | None:
        return None if token is None else self._model.token_text(token)

    def _check(self, token: Any) -> int:
        try:
            value = operator.index(token)
        except TypeError:
            raise BadRequestError(f"token id {token!r} is not an int") from None
        if not 0 <= value < self.vocab_size:
            raise BadRequestError(
                f"token id {value} is outside the vocabulary: ids are 0 to {self.vocab_size - 1}"
            )
        return value


__all__ = ["Tokenizer"]
