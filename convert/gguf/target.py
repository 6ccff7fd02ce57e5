"""A tensor of the GGUF file to be written: its name and shape, and how its numbers are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from convert.source.tensor import Array

Rows = NDArray[np.intp]
"""For each row of the target, the row of the source that it is."""


@dataclass(frozen=True, eq=False)
class Target:
    """One tensor of the GGUF file and where it comes from.

    Attributes:
        name: in llama.cpp's words, ``blk.0.attn_q.weight``.
        shape: rows first (GGUF's own order is the reverse).
        sources: the checkpoint's tensors that go into it.
        pieces: gives its numbers in order along the first axis, in one array or several.
        is_matrix: stored in the file's type; else in float32, whatever the file's type.
        raw_type: the pieces are bytes that already are in this type.
        rows: for a matrix that is one source's rows in another order, that order; a LoRA's B follows it.
        columns: the same of its columns; a LoRA's A follows it.
        is_transposed: the source has inputs first (GPT-2).
        scale: what each of its rows is multiplied by, ``(rows,)``; a LoRA's B is multiplied too.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    pieces: Callable[[], Iterator[Array]]
    is_matrix: bool
    raw_type: GGMLQuantizationType | None = None
    rows: Rows | None = None
    columns: Rows | None = None
    is_transposed: bool = False
    scale: Array | None = None

    def times(self, scale: Array) -> Target:
        """Return the target with each row multiplied.

        Args:
            scale: float32, ``(rows,)``.
        """

        def pieces() -> Iterator[Array]:
            start = 0
            for array in self.pieces():
                yield array.astype(np.float32) * scale[start : start + len(array), None]
                start += len(array)

        return self if (scale == 1).all() else replace(self, pieces=pieces, scale=scale)
