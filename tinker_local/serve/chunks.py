"""Chunks: a prompt in Tinker's form, token ids and images, as JSON has it."""

from __future__ import annotations

from typing import Any

from tinker_local.errors import BadRequestError, shown
from tinker_local.types import (
    EncodedTextChunk,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
    ModelInputChunk,
)

_IMAGES: dict[str, type[ImageChunk | ImageAssetPointerChunk]] = {
    "image": ImageChunk,
    "image_asset_pointer": ImageAssetPointerChunk,
}


def read_chunks(said: list[Any]) -> ModelInput:
    """Return a prompt by its chunks; token ids are checked by the client that gets it.

    Raises:
        BadRequestError: a chunk is of another kind, or has a wrong field.
    """
    return ModelInput(chunks=[_chunk(chunk) for chunk in said])


def _chunk(said: Any) -> ModelInputChunk:
    kind = said.get("type", "encoded_text") if isinstance(said, dict) else None
    if kind in _IMAGES:
        return _image(said, _IMAGES[kind])
    if kind != "encoded_text":
        raise BadRequestError(
            f"a chunk of the prompt has the type {shown(kind)}; encoded_text, "
            f"{' and '.join(_IMAGES)} are served here"
        )
    tokens = said.get("tokens")
    if not isinstance(tokens, list):
        raise BadRequestError(f"the tokens of a chunk are {shown(tokens)}; they must be a list of ints")
    return EncodedTextChunk(tokens=tokens)


def _image(
    said: dict[str, Any], kind: type[ImageChunk | ImageAssetPointerChunk]
) -> ImageChunk | ImageAssetPointerChunk:
    try:
        return kind.model_validate(said)
    except ValueError as error:
        raise BadRequestError(f"an image of the prompt is wrong: {shown(str(error))}") from None


__all__ = ["read_chunks"]
