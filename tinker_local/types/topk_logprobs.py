"""TopkLogprobs: the most probable tokens at each of some positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_LOGPROB = -99999.0
"""The log-probability in an empty cell of ``TopkLogprobs``, beside token id 0."""


@dataclass(frozen=True, slots=True)
class TopkLogprobs:
    """The k most probable tokens at each position, best first, ties by lower id.

    Attributes:
        token_ids: int32, shape (length, k); 0 in empty cells.
        logprobs: float32, shape (length, k), natural log; ``NO_LOGPROB`` in empty cells.
    """

    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]

    def to_lists(self) -> list[list[tuple[int, float]] | None]:
        """Return a list of ``(token_id, logprob)`` for each position, None where all are empty."""
        rows = zip(self.token_ids.tolist(), self.logprobs.tolist(), strict=True)
        lists = (
            [(i, p) for i, p in zip(ids, logprobs, strict=True) if p != NO_LOGPROB]
            for ids, logprobs in rows
        )
        return [pairs or None for pairs in lists]


__all__ = ["TopkLogprobs"]
