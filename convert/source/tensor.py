"""A tensor of a checkpoint, still on disk: its numbers are read when its array is used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(dtype)
    for name, dtype in {
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
        "I64": np.int64,
        "I32": np.int32,
        "I16": np.int16,
        "I8": np.int8,
        "U64": np.uint64,
        "U32": np.uint32,
        "U16": np.uint16,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }.items()
}
"""safetensors' names of number formats (https://huggingface.co/docs/safetensors)."""


_CHUNK = 1 << 22  # numbers that are compared at once


@dataclass(frozen=True, eq=False)
class SourceTensor:
    """A tensor in a safetensors file.

    Attributes:
        name: its name in the checkpoint.
        shape: rows first.
        dtype: safetensors' name of its number format, a key of ``DTYPES``.
        file: the file it lies in.
        offset: of its first byte from the start of the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    offset: int

    @property
    def n_bytes(self) -> int:
        """Bytes on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * DTYPES[self.dtype].itemsize

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the checkpoint's tensors that it is made of: its own, or several for a packed matrix."""
        return (self.name,)

    def array(self) -> Array:
        """Return its numbers as a read-only memory map, in their own format."""
        return self._mapped()

    def at(self, index: int) -> Array:
        """Return one entry of the first axis: of stacked experts, one of them."""
        entry: Array = self.array()[index]
        return entry

    def pieces(self) -> Iterator[Array]:
        """Yield its numbers in order along the first axis, in as much memory as one piece takes."""
        yield self.array()

    def _mapped(self) -> Array:
        if not self.n_bytes:
            return np.empty(self.shape, DTYPES[self.dtype])
        return np.memmap(self.file, DTYPES[self.dtype], mode="r", offset=self.offset, shape=self.shape)


def are_equal(one: SourceTensor, other: SourceTensor) -> bool:
    """Whether two tensors have the same shape and numbers, in whatever formats. Reads both."""
    if one.shape != other.shape:
        return False
    a, b = one.array(), other.array()
    step = max(1, _CHUNK // max(1, math.prod(one.shape[1:])))
    return all(_same(a[start : start + step], b[start : start + step]) for start in range(0, len(a), step))


def _same(one: Array, other: Array) -> bool:
    if one.dtype == other.dtype:  # bytes first: NaN equals itself then, and nothing is converted
        return one.tobytes() == other.tobytes() or bool(np.array_equal(one, other))
    return bool(np.array_equal(one.astype(np.float32), other.astype(np.float32)))
