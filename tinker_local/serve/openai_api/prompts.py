"""Prompts: texts, token ids, chunks and conversations, as a client takes them and an answer shows them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from tinker_local.errors import BadRequestError, shown
from tinker_local.image_prompts import chat_with_images, data_of_url, is_data_url, text_tokens
from tinker_local.pixels import format_of
from tinker_local.sampling_client import SamplingClient
from tinker_local.serve.image_directory import ImageDirectory
from tinker_local.serve.openai_api.fields import ChatFields, FieldError, TokenizeFields
from tinker_local.serve.openai_api.logprobs import Scored
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import EncodedTextChunk, ImageChunk, ModelInput, SampleResponse

_T = TypeVar("_T")
_TAKEN = frozenset(inspect.signature(Tokenizer.apply_chat_template).parameters)
"""Arguments that are no variables of a template."""
_URLS = "it must be data:image/png;base64,... or the same with jpeg"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt. Its images have neither ids nor log-probabilities, so answers show its texts alone.

    Attributes:
        input: what a client takes; each image says how many tokens it takes.
        tokens: the ids of the texts.
    """

    input: ModelInput
    tokens: list[int]

    @classmethod
    def of(cls, given: ModelInput, client: SamplingClient) -> Self:
        """Return a prompt whose images were counted.

        Raises:
            BadRequestError: an image cannot be read.
        """
        chunks = [_counted(c, client) if isinstance(c, ImageChunk) else c for c in given.chunks]
        return cls(ModelInput(chunks=chunks), text_tokens(given))

    @classmethod
    def of_tokens(cls, tokens: list[int]) -> Self:
        """Return a prompt of token ids alone."""
        return cls(ModelInput.from_ints(tokens), tokens)

    def __len__(self) -> int:
        return self.input.length

    def scored(self, response: SampleResponse) -> Scored:
        """Return the tokens of the texts with their log-probabilities."""
        return Scored(
            self.tokens,
            self._of_texts(response.prompt_logprobs),
            self._of_texts(response.topk_prompt_logprobs),
        )

    def _of_texts(self, values: Sequence[_T | None] | None) -> list[_T | None]:
        """Return the values at the texts' tokens, of one for each of the prompt's; None where none are."""
        if values is None:
            return [None] * len(self.tokens)
        found, start = list[_T | None](), 0
        for chunk in self.input.chunks:
            if isinstance(chunk, EncodedTextChunk):
                found += values[start : start + chunk.length]
            start += chunk.length
        return found


def _counted(image: ImageChunk, client: SamplingClient) -> ImageChunk:
    n_tokens = client.count_tokens(ModelInput(chunks=[image]))
    return image.model_copy(update={"expected_tokens": n_tokens})


def rendered(
    tokenizer: Tokenizer,
    fields: ChatFields | TokenizeFields,
    tools: Sequence[dict[str, Any]],
    variables: dict[str, Any],
    images: ImageDirectory,
) -> ModelInput:
    """Return the prompt that a conversation becomes: token ids, and images in their places.

    Raises:
        FieldError: a message has what is neither text nor image, or fields exclude each other.
        BadRequestError, NotFoundError: the template refuses the conversation, or an image cannot be read.
    """
    messages = fields.messages or []
    _check_messages(messages)
    pictures = [
        image_of(part.get("image_url"), images) for message in messages for part in _image_parts(message)
    ]
    if wrong := _TAKEN.intersection(variables):
        raise FieldError(
            f"chat_template_kwargs has {', '.join(sorted(wrong))}, which is no variable of a template",
            "chat_template_kwargs",
        )
    continued = fields.continue_final_message
    prompted = fields.add_generation_prompt and not (
        continued and "add_generation_prompt" not in fields.model_fields_set
    )
    if continued and prompted:
        raise FieldError(
            "continue_final_message and add_generation_prompt exclude each other; give one of them",
            "continue_final_message",
        )
    return chat_with_images(
        tokenizer,
        [_with_places(message) for message in messages] if pictures else messages,
        pictures,
        tools=list(tools) or None,
        documents=getattr(fields, "documents", None) or None,
        add_generation_prompt=prompted,
        continue_final_message=continued,
        **variables,
    )


def _image_parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [part for part in parts if part["type"] == "image_url"]


def _with_places(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose images are written as chat templates know them."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [p if p["type"] == "text" else {"type": "image"} for p in content]}


def image_of(given: Any, images: ImageDirectory, param: str = "messages") -> ImageChunk:
    """Return the image of an ``image_url``: a data URL, or a file on this machine; nothing is fetched.

    Args:
        given: the URL, or an object that has it as ``url``.
        images: the files that may be named.
        param: the field that has it.

    Raises:
        FieldError: it is another URL, or no base64.
        BadRequestError, NotFoundError: no such file may be read, or it is neither PNG nor JPEG.
    """
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str):
        raise FieldError(f"image_url is {shown(url)}; {_URLS}", param)
    data = _of_data_url(url, param) if is_data_url(url) else images.read(url)
    return ImageChunk(data=data, format=format_of(data))


def _of_data_url(url: str, param: str) -> bytes:
    try:
        return data_of_url(url)
    except BadRequestError as error:
        raise FieldError(f"image_url: {error}", param) from None


def _check_messages(messages: Sequence[dict[str, Any]]) -> None:
    for number, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(message.get("role"), str):
            raise FieldError(
                f"messages[{number}].role is {shown(message.get('role'))}; it must be a string", "messages"
            )
        if not isinstance(content, str | list | None):
            raise FieldError(
                f"messages[{number}].content is {shown(content)}; it must be a string or a list of parts",
                "messages",
            )
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind != "image_url" and (kind != "text" or not isinstance(part.get("text"), str)):
                raise FieldError(
                    f"messages[{number}] has a part of the type {shown(kind)}, not text or image_url",
                    "messages",
                )


__all__ = ["Prompt", "image_of", "rendered"]
