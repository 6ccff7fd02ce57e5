"""Tokens that a request names at positions of its prompt, to learn how probable they are there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Ids for each position of a prompt of n tokens but the first, in compressed rows.

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
        """Make one from its rows; some id must be named."""
        named = int((ids >= 0).argmax())
        return cls(ids, indptr, int(np.searchsorted(indptr, named, side="right")))

    def span(self, start: int, stop: int) -> slice:
        """Return where in ``ids`` those for positions ``start`` to ``stop`` are."""
        return slice(int(self.indptr[start - 1]), int(self.indptr[stop - 1]))

    def rows(self, start: int, stop: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids for positions ``start`` to ``stop``, and the ``indptr`` of these rows."""
        indptr = self.indptr[start - 1 : stop]
        return self.ids[self.span(start, stop)], indptr - indptr[0]


__all__ = ["Targets"]
