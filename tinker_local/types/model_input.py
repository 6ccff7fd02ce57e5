"""ModelInput: the prompt of a request."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, SkipValidation, field_validator


class EncodedTextChunk(BaseModel):
    """A part of a prompt: token ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: SkipValidation[Sequence[int]]
    type: Literal["encoded_text"] = "encoded_text"

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


ModelInputChunk: TypeAlias = EncodedTextChunk


class ModelInput(BaseModel):
    """The prompt of a request: chunks of token ids, taken as given (no BOS, no template)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunks: list[ModelInputChunk]

    @field_validator("chunks", mode="before")
    @classmethod
    def _take_chunks(cls, chunks: Any) -> Any:
        """Accept chunks of other packages by their tokens."""
        if not isinstance(chunks, list | tuple):
            return chunks
        return [
            EncodedTextChunk(tokens=chunk.tokens)
            if hasattr(chunk, "tokens") and not isinstance(chunk, EncodedTextChunk)
            else chunk
            for chunk in chunks
        ]

    @classmethod
    def from_ints(cls, tokens: list[int]) -> ModelInput:
        """Make a prompt of one chunk from token ids."""
        return cls(chunks=[EncodedTextChunk(tokens=tokens)])

    @classmethod
    def empty(cls) -> ModelInput:
        """Make a prompt without tokens, to append to."""
        return cls(chunks=[])

    def to_ints(self) -> list[int]:
        """Return the token ids of all chunks in one list."""
        return list(chain.from_iterable(chunk.tokens for chunk in self.chunks))

    @property
    def length(self) -> int:
        """Number of tokens in all chunks."""
        return sum(chunk.length for chunk in self.chunks)

    def append(self, chunk: ModelInputChunk) -> ModelInput:
        """Return a new prompt with ``chunk`` at its end."""
        return ModelInput(chunks=[*self.chunks, chunk])

    def append_int(self, token: int) -> ModelInput:
        """Return a new prompt with one more token at its end."""
        return self.append(EncodedTextChunk(tokens=[token]))


__all__ = ["EncodedTextChunk", "ModelInput", "ModelInputChunk"]
