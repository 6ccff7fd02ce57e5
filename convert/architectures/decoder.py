"""What all decoders have: token embeddings, and an output matrix that may be the same one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

from convert.architectures.architecture import Architecture, Target


class DecoderOnly(Architecture):
    """A model that reads tokens and gives logits."""

    prefixes: ClassVar[tuple[str, ...]] = ("model.",)
    """What the decoder's tensors may begin with."""

    embedding: ClassVar[str] = "embed_tokens.weight"
    """The token embeddings, behind the prefix."""

    heads: ClassVar[tuple[str, ...]] = ("lm_head.weight",)
    """What the output matrix may be called."""

    is_tied: ClassVar[bool] = False
    """What transformers takes for a missing ``tie_word_embeddings``."""

    @cached_property
    def prefix(self) -> str:
        """What the decoder's tensors begin with in this checkpoint."""
        found = (prefix for prefix in self.prefixes if self.has(f"{prefix}{self.embedding}"))
        return next(found, self.prefixes[0])

    @property
    def tied(self) -> bool:
        """Whether the output matrix is the token embeddings."""
        return bool(self.config.get("tie_word_embeddings", self.is_tied))

    def embeddings(self) -> Iterator[Target]:
        """Yield the token embeddings, and the output matrix where it is another one."""
        yield self.take("token_embd.weight", f"{self.prefix}{self.embedding}")
        if not self.tied:
            head = next(filter(self.has, self.heads), self.heads[0])
            yield self.take("output.weight", head)
