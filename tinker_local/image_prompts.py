"""Prompts of text and images, as a model was trained on them: what stands around an image, and where.

A place is a row of ``_PLACES``; another family is another row.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinker_local.errors import BadRequestError, NotFoundError, shown
from tinker_local.pixels import format_of, read_file
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import EncodedTextChunk, ImageChunk, ModelInput, ModelInputChunk


@dataclass(frozen=True, slots=True)
class _Place:
    """How a family writes an image.

    Attributes:
        marker: the token that its chat template writes for an image.
        before, after: the text around an image.
        in_template: whether the template writes that text, too.
    """

    marker: str
    before: str
    after: str
    in_template: bool


_PLACES = (
    _Place("<|image_pad|>", "<|vision_start|>", "<|vision_end|>", in_template=True),  # Qwen
    _Place("<start_of_image>", "\n\n<start_of_image>", "<end_of_image>\n\n", in_template=False),  # Gemma 3
)


def read_image(path: Path) -> ImageChunk:
    """Return the image of a file, a PNG or a JPEG.

    Raises:
        NotFoundError: there is no such file.
        BadRequestError: it cannot be read, or is neither.
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise NotFoundError(f"there is no image {path}") from None
    except OSError as error:
        raise BadRequestError(f"the image {path} cannot be read: {error.strerror}") from error
    return ImageChunk(data=data, format=format_of(data))


def image_at(location: str) -> ImageChunk:
    """Return the image in a data URL, or of a file; nothing is fetched.

    Raises:
        NotFoundError: there is no such file.
        BadRequestError: it cannot be read, or is neither PNG nor JPEG.
    """
    if not is_data_url(location):
        return read_image(Path(location))
    data = data_of_url(location)
    return ImageChunk(data=data, format=format_of(data))


def is_data_url(location: str) -> bool:
    """Whether an image is in its URL (RFC 2397)."""
    return location.startswith("data:")


def data_of_url(url: str) -> bytes:
    """Return the bytes in a data URL of an image.

    Raises:
        BadRequestError: it is no image in base64.
    """
    head, _, data = url.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise BadRequestError(f"the data URL is {shown(url)}; it must be data:image/png;base64,... or jpeg")
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise BadRequestError(f"the data URL {shown(url)} has no base64: {error}") from None


def prompt_of(
    tokenizer: Tokenizer, text: str, images: Sequence[ImageChunk] = (), *, chat: bool = False
) -> ModelInput:
    """Return a text that is to be continued, or a chat message of the user; images stand before it.

    Raises:
        BadRequestError: there are images, and the model has no token for them, or its template no place.
    """
    if not chat:
        return text_with_images(tokenizer, text, images)
    parts = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
    messages = [{"role": "user", "content": parts if images else text}]
    return chat_with_images(tokenizer, messages, images, add_generation_prompt=True)


def text_with_images(tokenizer: Tokenizer, text: str, images: Sequence[ImageChunk]) -> ModelInput:
    """Return a prompt of images, each with what stands around it, and a text.

    Raises:
        BadRequestError: the model has no token for images.
    """
    if not images:
        return ModelInput.from_ints(tokenizer.encode(text))
    place = _place_of(tokenizer)
    between = place.after + place.before
    return _joined(tokenizer, [place.before, *[between] * (len(images) - 1), place.after + text], images)


def chat_with_images(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    images: Sequence[ImageChunk],
    **options: Any,
) -> ModelInput:
    """Return a conversation by the model's chat template, with images in the places that it writes.

    Args:
        tokenizer: the model's.
        messages: contents are lists of parts; those of the type "image" are images, in order.
        images: the images.
        **options: of ``apply_chat_template``.

    Raises:
        BadRequestError: the template refuses the messages, or has another number of places.
    """
    if not images:
        return ModelInput.from_ints(tokenizer.apply_chat_template(messages, **options))
    place = _place_of(tokenizer)
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    texts = text.split(place.marker)
    if len(texts) != len(images) + 1:
        raise BadRequestError(
            f"the chat template writes {len(texts) - 1} places ({place.marker}) for {len(images)} images"
        )
    if not place.in_template:
        texts = [
            (place.after if i else "") + part + (place.before if i < len(images) else "")
            for i, part in enumerate(texts)
        ]
    return _joined(tokenizer, texts, images, adds_special=False)


def text_tokens(prompt: ModelInput) -> list[int]:
    """Return the token ids of a prompt without its images."""
    texts = (chunk.tokens for chunk in prompt.chunks if isinstance(chunk, EncodedTextChunk))
    return [token for tokens in texts for token in tokens]


def _place_of(tokenizer: Tokenizer) -> _Place:
    for place in _PLACES:
        if len(tokenizer.encode(place.marker, add_special_tokens=False)) == 1:
            return place
    names = ", ".join(place.marker for place in _PLACES)
    raise BadRequestError(f"the model has no token for images; known are {names}")


def _joined(
    tokenizer: Tokenizer, texts: Sequence[str], images: Sequence[ImageChunk], *, adds_special: bool = True
) -> ModelInput:
    """Return texts with an image between each two."""
    chunks = list[ModelInputChunk]()
    for i, text in enumerate(texts):
        tokens = tokenizer.encode(text, add_special_tokens=adds_special and i == 0)
        chunks += [EncodedTextChunk(tokens=tokens), *images[i : i + 1]]
    return ModelInput(chunks=chunks)


__all__ = [
    "chat_with_images",
    "data_of_url",
    "image_at",
    "is_data_url",
    "prompt_of",
    "read_image",
    "text_tokens",
    "text_with_images",
]
