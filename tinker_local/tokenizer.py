"""Tokenizer: the vocabulary of a GGUF file, with the interface of transformers."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, SupportsIndex, overload

from tinker_local.chat_template import render, render_open
from tinker_local.errors import BadRequestError, shown
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
        """Id of the token that begins a text (BOS), None if the vocabulary has none."""
        return self._model.special_token("bos")

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a text or a turn (EOS), None if the vocabulary has none."""
        return self._model.special_token("eos")

    @property
    def pad_token_id(self) -> int | None:
        """Id of the padding token, None if the vocabulary has none."""
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
        """The model file's Jinja template for conversations, None if it has none."""
        return self._model.metadata("tokenizer.chat_template")

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text.

        Special tokens written in the text (``<|im_start|>``) become their ids.

        Args:
            text: any text.
            add_special_tokens: add BOS and EOS where the vocabulary says so.
        """
        if not isinstance(text, str):
            raise BadRequestError(f"text is a {type(text).__name__} ({shown(text)}); encode takes a str")
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
        """Return the text of token ids: a list, an array, or one id. A batch gives a list of texts.

        Bytes that are not UTF-8, such as half a character at the end, become U+FFFD.

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
        """Return the vocabulary's text of an id, or a list of them for a list of ids."""
        if hasattr(ids, "__iter__"):
            return [self._model.token_text(self._check(token)) for token in ids]
        return self._model.token_text(self._check(ids))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a token, its leading space included; of a control token, its name.

        A token may be part of a character, so that only several tokens together are text.

        Raises:
            BadRequestError: ``token_id`` is not an id of this vocabulary.
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
        """Return a conversation in the form that the model was trained on, as token ids or text.

        Args:
            conversation: messages with "role" and "content".
            add_generation_prompt: end with the beginning of the assistant's turn.
            tokenize: return token ids; False returns the text.
            return_dict: return ``{"input_ids": ..., "attention_mask": ...}`` instead of the ids.
            chat_template: a template to use instead of the model file's.
            continue_final_message: end with the last message's content, so that the model continues it.
            **kwargs: variables for the template, such as ``tools`` or ``enable_thinking``.

        Raises:
            BadRequestError: there is no template, the template fails on this conversation, or the
                arguments exclude each other.
        """
        template = chat_template or self.chat_template
        if template is None:
            raise BadRequestError(
                f"{self._model.path.name} has no chat template; pass one as chat_template"
            )
        variables = {"tools": None, "documents": None, **self._special_tokens(), **kwargs}
        if continue_final_message and add_generation_prompt:
            raise BadRequestError(
                "add_generation_prompt and continue_final_message exclude each other; give one of them"
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
            raise BadRequestError(f"token id {shown(token)} is not an int") from None
        if not 0 <= value < self.vocab_size:
            raise BadRequestError(
                f"token id {shown(value)} is outside the vocabulary: ids are 0 to {self.vocab_size - 1}"
            )
        return value


__all__ = ["Tokenizer"]
