"""Scores of prompt tokens: their log-probabilities, the top k in their place, and ids asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinker_local.types.topk_logprobs import NO_LOGPROB


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of n tokens, and of the most probable tokens in the place of each.

    Attributes:
        logprobs: float32 (n,), natural logarithms; NaN where not (yet) known.
        topk_ids, topk_logprobs: int32 and float32 (n, k), best first.
    """

    logprobs: NDArray[np.float32]
    topk_ids: NDArray[np.int32]
    topk_logprobs: NDArray[np.float32]

    @classmethod
    def unknown(cls, n: int, k: int) -> Scores:
        """Make room for the scores of ``n`` tokens with ``k`` alternatives."""
        nothing = np.full((n, k), NO_LOGPROB, np.float32)
        return cls(np.full(n, np.nan, np.float32), np.zeros((n, k), np.int32), nothing)

    def __len__(self) -> int:
        return len(self.logprobs)

    @property
    def k(self) -> int:
        """Alternatives a token."""
        return int(self.topk_ids.shape[1])

    def part(self, start: int, stop: int) -> Scores:
        """Return a view of tokens ``start`` to ``stop``."""
        at = slice(start, stop)
        return Scores(self.logprobs[at], self.topk_ids[at], self.topk_logprobs[at])

    def copy(self) -> Scores:
        """Return a copy in memory of its own."""
        return Scores(self.logprobs.copy(), self.topk_ids.copy(), self.topk_logprobs.copy())

    def write(self, parts: Iterable[tuple[int, Scores]]) -> None:
        """Copy pieces of other scores to their places; these must have at least ``k`` alternatives."""
        for start, part in parts:
            at = slice(start, start + len(part))
            self.logprobs[at] = part.logprobs
            self.topk_ids[at] = part.topk_ids[:, : self.k]
            self.topk_logprobs[at] = part.topk_logprobs[:, : self.k]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The scores that a request wants of its prompt.

    Attributes:
        first: first token whose score is wanted.
        limit: from this token on the logits themselves are wanted, and cached scores are of no use.
        k: alternatives a token.
    """

    first: int
    limit: int
    k: int


NO_TOKEN = -1
"""Stands in ``Alternatives`` in the place of an image's tokens, with the log-probability 0."""


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Tokens drawn in the places of n tokens: int32 and float32 (n, k)."""

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]

    @classmethod
    def unknown(cls, n: int, k: int) -> Alternatives:
        """Make room for ``k`` draws in each of ``n`` places."""
        return cls(np.zeros((n, k), np.int32), np.zeros((n, k), np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Ids to score at each position of a prompt of n tokens but the first, in compressed rows.

    Attributes:
        ids: int32 (m,); -1 asks for nothing.
        indptr: int64 (n,): ``ids[indptr[i - 1] : indptr[i]]`` are those for position i.
        first: the first position with an id to score.
    """

    ids: NDArray[np.int32]
    indptr: NDArray[np.int64]
    first: int

    @classmethod
    def of(cls, ids: NDArray[np.int32], indptr: NDArray[np.int64]) -> Targets:
        """Make targets from rows that name at least one id."""
        named = int((ids >= 0).argmax())
        return cls(ids, indptr, int(np.searchsorted(indptr, named, side="right")))

    def span(self, start: int, stop: int) -> slice:
        """Return the slice of ``ids`` for positions ``start`` to ``stop``."""
        return slice(int(self.indptr[start - 1]), int(self.indptr[stop - 1]))

    def rows(self, start: int, stop: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids for positions ``start`` to ``stop``, and the ``indptr`` of these rows."""
        indptr = self.indptr[start - 1 : stop]
        return self.ids[self.span(start, stop)], indptr - indptr[0]
