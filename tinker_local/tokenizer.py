"""Tokenizer: the vocabulary of a GGUF file, with the interface of transformers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, overload

from tinker_local.chat.continuation import render_open
from tinker_local.chat.conversation import Message, documents_of, is_batch, messages_of, plain, tools_of
from tinker_local.chat.generation import Span, render_with_spans
from tinker_local.chat.template import render
from tinker_local.chat.templates import DEFAULT, ChatTemplates
from tinker_local.encoding.batch_encoding import BatchEncoding
from tinker_local.encoding.encoder import Encoder
from tinker_local.encoding.options import NAMES, REFUSED, EncodingOptions
from tinker_local.errors import BadRequestError, shown
from tinker_local.llama.model import Model

Conversation = Sequence[Mapping[str, Any]]
Conversations = Sequence[Sequence[Mapping[str, Any]]]
_KEY = "tokenizer.chat_template"
_NEUTRAL = {"add_special_tokens": False, "sanitize_control_tokens": False, "messages": ...}
"""Arguments that are neither taken nor variables of a template, with the value that asks for nothing."""

logger = logging.getLogger(__name__)


class Tokenizer(Encoder):
    """Text to token ids and back, as the model file defines it. Get one from ``get_tokenizer()``.

    Method names, arguments and defaults follow ``transformers.PreTrainedTokenizerBase``. An argument of
    transformers acts as it does there, or an error names it. Where transformers 4 and 5 differ, 5 is
    followed, with one exception: ``apply_chat_template`` returns a plain list of ids, ready for
    ``ModelInput.from_ints``, unless ``return_dict=True``.

    A GGUF file has fewer words for special tokens than a checkpoint: ``all_special_ids`` are all control
    tokens of the file. BOS, EOS and the others are those that the file names. llama.cpp's converter names
    config.json's BOS for Qwen, where transformers has none; a file of this package's converter names none.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        keys = [key for key in model.metadata_keys() if key == _KEY or key.startswith(f"{_KEY}.")]
        named = {key: model.metadata(key) for key in keys}
        self.chat_template = {
            key.removeprefix(_KEY).removeprefix(".") or DEFAULT: text for key, text in named.items() if text
        }

    @property
    def chat_template(self) -> str | dict[str, str] | None:
        """The file's Jinja template for conversations, several by name, or None; it can be set."""
        return self._templates.value

    @chat_template.setter
    def chat_template(self, given: str | Mapping[str, str] | None) -> None:
        self._templates = ChatTemplates(given, self._model.path.name)

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """Return the template that ``apply_chat_template`` uses with these arguments.

        Args:
            chat_template: a template, or the name of one in the file.
            tools: the conversation's tools; with some, the template ``tool_use`` is taken if there is one.

        Raises:
            BadRequestError: there is none, or none of that name.
        """
        return self._templates.choose(chat_template, tools)

    @overload
    def apply_chat_template(
        self, conversation: Conversation, tools: Any = ..., *, tokenize: Literal[False], **kwargs: Any
    ) -> str: ...

    @overload
    def apply_chat_template(
        self, conversation: Conversation, tools: Any = ..., *, return_dict: Literal[True], **kwargs: Any
    ) -> BatchEncoding: ...

    @overload
    def apply_chat_template(
        self, conversation: Conversation, tools: Any = ..., **kwargs: Any
    ) -> list[int]: ...

    @overload
    def apply_chat_template(self, conversation: Conversations, tools: Any = ..., **kwargs: Any) -> Any: ...

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        *,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool | None = None,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return a conversation in the form that the model was trained on, as token ids or text.

        Messages are dicts, dataclasses or pydantic models. A field that is None counts as absent.

        Args:
            conversation: messages with "role" and "content", or a list of conversations. Several give a
                list of texts, or of lists of ids.
            tools: what the model may call: JSON schemas, or Python functions with types and a docstring in
                Google's style, which become schemas.
            documents: what the model may read, dicts with "title" and "text".
            chat_template: a template, or the name of one in the file. None: ``tool_use`` with tools if
                there is one, else the file's default.
            add_generation_prompt: end with the beginning of the assistant's turn.
            continue_final_message: end with the last message's content, so that the model continues it; a
                str names another field to continue, such as "reasoning_content".
            tokenize: return token ids; False returns the text.
            padding, truncation, max_length, return_tensors: as of calling the tokenizer.
            return_dict: return a ``BatchEncoding`` with ``input_ids`` and ``attention_mask``. None: with
                ``return_assistant_tokens_mask`` only.
            return_assistant_tokens_mask: add ``assistant_masks``, which has 1 for each token with a
                character that the template's ``{% generation %}`` tags enclose.
            tokenizer_kwargs: more arguments of calling the tokenizer, such as ``padding_side``.
            **kwargs: variables for the template, such as ``enable_thinking``.

        Raises:
            BadRequestError: there is no template, the template fails on this conversation, or the
                arguments are wrong or exclude each other.
        """
        field = "content" if continue_final_message is True else continue_final_message or None
        masked = return_assistant_tokens_mask
        _check_together(tokenize, return_dict, masked, add_generation_prompt, field)
        template = self.get_chat_template(chat_template, tools)
        variables = {
            **self.special_tokens_map,
            **_variables(kwargs),
            "tools": tools_of(tools),
            "documents": documents_of(documents),
            "add_generation_prompt": plain(add_generation_prompt),
        }
        several = is_batch(conversation)
        conversations = [messages_of(each) for each in (conversation if several else [conversation])]
        rendered = [_rendered(template, each, variables, field, masked) for each in conversations]
        texts = [text for text, _ in rendered]
        if not tokenize:
            return texts if several else texts[0]
        options = _options(
            tokenizer_kwargs,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
            add_special_tokens=False,  # the template writes its own
        )
        spans = [found for _, found in rendered] if masked else None
        if spans and not any(spans):
            logger.warning(
                "the chat template has no generation tags around anything: assistant_masks are 0"
            )
        encoding = self._encoding(texts, options, is_batch=several, spans=spans)
        return encoding if return_dict or masked else encoding["input_ids"]

    def __repr__(self) -> str:
        return f"Tokenizer({self._model.path.name!r}, vocab_size={self.vocab_size})"


def _rendered(
    template: str, messages: list[Message], variables: dict[str, Any], field: str | None, masked: bool
) -> tuple[str, list[Span]]:
    """Return a conversation's text, and what of it the assistant says if that is asked for."""
    if masked:
        return render_with_spans(template, messages, **variables)
    if field is not None:
        return render_open(template, messages, field, **variables), []
    return render(template, messages, **variables), []


def _check_together(
    tokenize: bool, return_dict: bool | None, masked: bool, prompted: bool, field: object
) -> None:
    if field is not None and not isinstance(field, str):
        raise BadRequestError(
            f"continue_final_message is {shown(field)}; it must be a bool, or the name of a field"
        )
    if field is not None and prompted:
        raise BadRequestError(
            "add_generation_prompt and continue_final_message exclude each other; give one of them"
        )
    if masked and field is not None:
        raise BadRequestError(
            "return_assistant_tokens_mask and continue_final_message exclude each other; give one of them"
        )
    if masked and (not tokenize or return_dict is False):
        raise BadRequestError("return_assistant_tokens_mask needs tokenize=True and return_dict=True")


def _variables(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template's variables among other arguments: none that has a meaning in transformers."""
    given = dict(given)
    for name, value in given.items():
        if name in _NEUTRAL and value is _NEUTRAL[name]:
            continue
        if name in _NEUTRAL or name in REFUSED:
            raise BadRequestError(f"apply_chat_template does not take {name}={shown(value)}")
        if name in NAMES:
            raise BadRequestError(
                f"apply_chat_template has no argument {name!r}; give it in tokenizer_kwargs"
            )
    variables: dict[str, Any] = plain(
        {name: value for name, value in given.items() if name not in _NEUTRAL}
    )
    return variables


def _options(more: Mapping[str, Any] | None, **given: Any) -> EncodingOptions:
    if more is not None and not isinstance(more, Mapping):
        raise BadRequestError(f"tokenizer_kwargs is {shown(more)}; it must be a dict of arguments")
    for name in more or ():
        if name == "add_special_tokens":
            raise BadRequestError("tokenizer_kwargs has 'add_special_tokens', but the template writes them")
        if name in given:
            raise BadRequestError(f"tokenizer_kwargs has {name!r}, which is an argument of its own")
    return EncodingOptions.of({**given, **(more or {})}, "apply_chat_template")
