"""Decoder-only models: token embeddings, and an output matrix that may be the same matrix."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

from convert.architectures.architecture import Architecture, Target


class DecoderOnly(Architecture):
    """A decoder-only model. The class variables say what its embeddings are called in checkpoints."""

    prefixes: ClassVar[tuple[str, ...]] = ("model.",)
    """Possible prefixes of the decoder's tensors; the one whose token embeddings exist is used."""

    embedding: ClassVar[str] = "embed_tokens.weight"
    """The name of the token embeddings after the prefix."""

    heads: ClassVar[tuple[str, ...]] = ("lm_head.weight",)
    """Possible names of the output matrix; the first one that exists is used."""

    is_tied: ClassVar[bool] = False
    """transformers' default for a missing ``tie_word_embeddings``."""

    @cached_property
    def prefix(self) -> str:
        """The prefix of the decoder's tensors in this checkpoint."""
        found = (prefix for prefix in self.prefixes if self.has(f"{prefix}{self.embedding}"))
        return next(found, self.prefixes[0])

    @property
    def tied(self) -> bool:
        """Whether the output matrix is the token embeddings."""
        return bool(self.config.get("tie_word_embeddings", self.is_tied))

    def embeddings(self) -> Iterator[Target]:
        """Yield the token embeddings, and the output matrix if it is a matrix of its own."""
        yield self.take("token_embd.weight", f"{self.prefix}{self.embedding}")
        if not self.tied:
            head = next(filter(self.has, self.heads), self.heads[0])
            yield self.take("output.weight", head)
