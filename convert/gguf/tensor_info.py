"""A tensor's entry in the head of a GGUF file: name, shape, number format and place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convert.gguf.formats import FORMATS, NumberFormat

ALIGNMENT = 32
"""Each tensor starts at a multiple of this many bytes, ``GGUF_DEFAULT_ALIGNMENT``."""


def pad(n: int, alignment: int = ALIGNMENT) -> int:
    """Return the next multiple of the alignment."""
    return -(-n // alignment) * alignment


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's entry in the head of a GGUF file.

    Attributes:
        name: llama.cpp's, ``blk.0.attn_q.weight``.
        shape: as numpy and PyTorch have it: the axis that varies fastest last, so a matrix is (rows,
            columns). The file, and ``ne``, have the reverse.
        type: how its numbers are stored, enum ggml_type.
        start: byte of the file at which its data begins; 0 for a tensor that has no place yet.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    start: int = 0

    @property
    def ne(self) -> tuple[int, int, int, int]:
        """ggml's ``ne``: four extents, the fastest first, 1 for axes that are not there."""
        a, b, c, d, *_ = (*self.shape[::-1], 1, 1, 1, 1)
        return a, b, c, d

    @property
    def format(self) -> NumberFormat:
        """How its numbers are stored."""
        return FORMATS[self.type]

    @property
    def n_bytes(self) -> int:
        """Bytes of its data. The rows must be whole blocks."""
        return math.prod(self.shape) // self.format.block_length * self.format.block_bytes

    @property
    def n_padded(self) -> int:
        """Bytes from its start to the next tensor's, at the usual alignment."""
        return pad(self.n_bytes)


__all__ = ["ALIGNMENT", "TensorInfo", "pad"]
