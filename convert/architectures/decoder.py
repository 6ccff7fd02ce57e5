"""What all decoders have: token embeddings, and an output matrix that may be the same one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from convert.architectures.architecture import Architecture, Target


class Decoder(Architecture):
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

    def embeddings(self) -> Iterator[Target]:
        """Yield the token embeddings, and the output matrix where it is another one.

        A tied checkpoint may contain the output matrix all the same. If it differs, transformers 5 does
        not tie them; nor do we.
        """
        source = f"{self.prefix}{self.embedding}"
        head = next(filter(self.has, self.heads), None)
        embeddings = self.take("token_embd.weight", source)
        tied = self.config.get("tie_word_embeddings", self.is_tied)
        if tied and head is not None and self.is_copy(head, source):
            yield replace(embeddings, sources=(source, head))
            return
        yield embeddings
        if head is not None or not tied:
            yield self.take("output.weight", head or self.heads[0])

    def is_copy(self, source: str, other: str) -> bool:
        """Whether two tensors are the same, bit for bit."""
        ours, theirs = self.tensor(source), self.tensor(other)
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return False
        pairs = zip(ours.array(), theirs.array(), strict=True)
        return all(np.array_equal(a.view(np.uint8), b.view(np.uint8)) for a, b in pairs)
