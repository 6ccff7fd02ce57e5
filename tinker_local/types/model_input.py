"""ModelInput: the prompt of a request, in chunks of token ids and of images."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, field_serializer, field_validator


class EncodedTextChunk(BaseModel):
    """A part of a prompt: token ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: SkipValidation[Sequence[int]]
    type: Literal["encoded_text"] = "encoded_text"

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


class ImageChunk(BaseModel):
    """A part of a prompt: an image, as the bytes of its file.

    Attributes:
        data: the bytes; a str is taken for base64, as in JSON.
        format: "png" or "jpeg"; the data must be of it.
        expected_tokens: tokens that the image takes. Given, a request fails where the model needs another
            number of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: bytes
    format: Literal["png", "jpeg"]
    expected_tokens: int | None = None
    type: Literal["image"] = "image"

    @field_validator("data", mode="before")
    @classmethod
    def validate_data(cls, value: bytes | str) -> bytes:
        """Return the bytes that a str of base64 stands for, and anything else as it is."""
        return base64.b64decode(value) if isinstance(value, str) else value

    @field_serializer("data")
    def serialize_data(self, value: bytes) -> str:
        """Return base64, for JSON."""
        return base64.b64encode(value).decode()

    @property
    def length(self) -> int:
        """Number of tokens. Raises ValueError where ``expected_tokens`` is None: only a model knows."""
        return _expected(self)

    def __repr__(self) -> str:
        size = f"{len(self.data)} bytes of {self.format}"
        return f"ImageChunk({size}, expected_tokens={self.expected_tokens})"


class ImageAssetPointerChunk(BaseModel):
    """A part of a prompt: an image by its place, a path on this machine. Nothing is ever fetched.

    Attributes:
        format: "png" or "jpeg"; the file must be of it.
        location: a path, also as ``file://`` URL; or the name of a file in ``images`` of the store.
        expected_tokens: as in ``ImageChunk``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["png", "jpeg"]
    location: str
    expected_tokens: int | None = None
    type: Literal["image_asset_pointer"] = "image_asset_pointer"

    @property
    def length(self) -> int:
        """Number of tokens. Raises ValueError where ``expected_tokens`` is None: only a model knows."""
        return _expected(self)


def _expected(image: ImageChunk | ImageAssetPointerChunk) -> int:
    if image.expected_tokens is None:
        raise ValueError(f"{type(image).__name__} has a length only where expected_tokens is set")
    return image.expected_tokens


ModelInputChunk: TypeAlias = EncodedTextChunk | ImageAssetPointerChunk | ImageChunk
_KNOWN = (EncodedTextChunk, ImageAssetPointerChunk, ImageChunk)


class ModelInput(BaseModel):
    """The prompt of a request: chunks of token ids and images, taken as given (no BOS, no template)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunks: list[Annotated[ModelInputChunk, Field(discriminator="type")]]

    @field_validator("chunks", mode="before")
    @classmethod
    def _take_chunks(cls, chunks: Any) -> Any:
        """Accept chunks of other packages by what they hold."""
        return [_of_ours(chunk) for chunk in chunks] if isinstance(chunks, list | tuple) else chunks

    @classmethod
    def from_ints(cls, tokens: list[int]) -> ModelInput:
        """Make a prompt of one chunk from token ids."""
        return cls(chunks=[EncodedTextChunk(tokens=tokens)])

    @classmethod
    def empty(cls) -> ModelInput:
        """Make a prompt without tokens, to append to."""
        return cls(chunks=[])

    def to_ints(self) -> list[int]:
        """Return the token ids of all chunks in one list.

        Raises:
            ValueError: there are images, which have no token ids.
        """
        if not all(isinstance(chunk, EncodedTextChunk) for chunk in self.chunks):
            raise ValueError("to_ints needs a prompt of token ids alone, and this one has images")
        return list(chain.from_iterable(chunk.tokens for chunk in self.chunks))  # type: ignore[union-attr]

    @property
    def length(self) -> int:
        """Number of tokens in all chunks.

        Raises:
            ValueError: an image has no ``expected_tokens``.
        """
        return sum(chunk.length for chunk in self.chunks)

    def append(self, chunk: ModelInputChunk) -> ModelInput:
        """Return a new prompt with ``chunk`` at its end."""
        return ModelInput(chunks=[*self.chunks, chunk])

    def append_int(self, token: int) -> ModelInput:
        """Return a new prompt with one more token at its end."""
        return self.append(EncodedTextChunk(tokens=[token]))


def _of_ours(chunk: Any) -> Any:
    """Return another package's chunk as one of ours, and anything else as it is."""
    if isinstance(chunk, _KNOWN):
        return chunk
    if hasattr(chunk, "tokens"):
        return EncodedTextChunk(tokens=chunk.tokens)
    if hasattr(chunk, "location"):
        return ImageAssetPointerChunk(
            location=chunk.location, format=chunk.format, expected_tokens=chunk.expected_tokens
        )
    if hasattr(chunk, "data") and hasattr(chunk, "format"):
        return ImageChunk(data=chunk.data, format=chunk.format, expected_tokens=chunk.expected_tokens)
    return chunk


__all__ = ["EncodedTextChunk", "ImageAssetPointerChunk", "ImageChunk", "ModelInput", "ModelInputChunk"]
