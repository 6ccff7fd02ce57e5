"""Packed matrices: a checkpoint keeps values and scales in several tensors, here they are one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.errors import CheckpointError
from convert.source.packed import (
    Bytes,
    Float32,
    dequantize_int4,
    dequantize_mxfp4,
    fits_q4_0,
    repack_mxfp4,
    repack_q4_0,
)
from convert.source.tensor import Array, SourceTensor

_MXFP4_NAN = 255
"""The byte of a scale that means NaN."""


@dataclass(frozen=True, eq=False)
class PackedTensor(SourceTensor):
    """A matrix made of several tensors of the checkpoint. Its array is float32.

    Attributes:
        parts: the tensors.
        numbers: gives the numbers they stand for, in the matrix's shape.
    """

    parts: tuple[SourceTensor, ...]
    numbers: Callable[[], Float32]

    @property
    def sources(self) -> tuple[str, ...]:
        """The checkpoint's tensors it is made of."""
        return tuple(part.name for part in self.parts)

    @property
    def n_bytes(self) -> int:
        """Bytes on disk."""
        return sum(part.n_bytes for part in self.parts)

    def array(self) -> Array:
        """Return the numbers it stands for, float32."""
        return self.numbers()


@dataclass(frozen=True, eq=False)
class PackedStack(PackedTensor):
    """Experts in one packed tensor, unpacked one by one.

    Attributes:
        one: gives the numbers of an expert.
    """

    one: Callable[[int], Float32]

    def at(self, index: int) -> Array:
        """Return the numbers of one expert, float32."""
        return self.one(index)


@dataclass(frozen=True, eq=False)
class Int4Tensor(PackedTensor):
    """Symmetric 4-bit integers, eight in an int32, a scale for each 32 in a row. Its array is float32.

    Its first two parts are the integers and the scales.
    """

    def fits_q4_0(self) -> bool:
        """Whether Q4_0 can hold it without loss. Reads the scales."""
        return fits_q4_0(self.parts[1].array())

    def q4_0(self) -> Bytes:
        """Return it in ggml's Q4_0, shape ``(rows, columns / 32 * 18)``."""
        return repack_q4_0(self.parts[0].array(), self.parts[1].array())


@dataclass(frozen=True, eq=False)
class Mxfp4Tensor(SourceTensor):
    """Experts in MXFP4, as gpt-oss has them. ``shape`` is (experts, inputs, outputs); an entry is float32.

    Their bytes have outputs first.
    """

    blocks: SourceTensor
    scales: SourceTensor

    @property
    def sources(self) -> tuple[str, ...]:
        """The checkpoint's tensors it is made of."""
        return (self.blocks.name, self.scales.name)

    def array(self) -> Array:
        """Return the numbers it stands for, float32."""
        return np.stack([self.at(expert) for expert in range(self.shape[0])])

    def at(self, index: int) -> Array:
        """Return the numbers of one expert, float32."""
        self._refuse_nan(index)
        return dequantize_mxfp4(self.blocks.array()[index], self.scales.array()[index]).T

    def packed(self, index: int, rows: Array) -> Bytes:
        """Return outputs of an expert in ggml's MXFP4, shape ``(1, rows, inputs / 32 * 17)``."""
        self._refuse_nan(index)
        return repack_mxfp4(self.blocks.array()[index][rows], self.scales.array()[index][rows])[None]

    def _refuse_nan(self, index: int) -> None:
        if self.scales.array()[index].max(initial=0) == _MXFP4_NAN:
            raise CheckpointError(f"tensor {self.scales.name} has a scale that is no number")


def packed(
    name: str, shape: Sequence[int], parts: Sequence[SourceTensor], numbers: Callable[[], Float32]
) -> PackedTensor:
    """Return a packed matrix; the file and place are those of its first part."""
    return PackedTensor(**_fields(name, shape, parts), parts=tuple(parts), numbers=numbers)


def packed_stack(
    name: str, shape: Sequence[int], parts: Sequence[SourceTensor], one: Callable[[int], Float32]
) -> PackedStack:
    """Return packed experts; ``one`` gives the numbers of one of them."""

    def numbers() -> Float32:
        return np.stack([one(expert) for expert in range(shape[0])])

    return PackedStack(**_fields(name, shape, parts), parts=tuple(parts), numbers=numbers, one=one)


def packed_int4(name: str, shape: Sequence[int], parts: Sequence[SourceTensor]) -> Int4Tensor:
    """Return symmetric 4-bit integers in groups of 32; ``parts``: the integers, the scales, others."""

    def numbers() -> Float32:
        return dequantize_int4(parts[0].array(), parts[1].array())

    return Int4Tensor(**_fields(name, shape, parts), parts=tuple(parts), numbers=numbers)


def packed_mxfp4(name: str, blocks: SourceTensor, scales: SourceTensor, group: int) -> Mxfp4Tensor:
    """Return experts in MXFP4; ``group``: numbers that share a scale."""
    n_experts, n_outputs, n_groups = scales.shape
    fields = _fields(name, (n_experts, n_groups * group, n_outputs), (blocks,))
    return Mxfp4Tensor(**fields, blocks=blocks, scales=scales)


def _fields(name: str, shape: Sequence[int], parts: Sequence[SourceTensor]) -> dict[str, Any]:
    first = parts[0]
    return {
        "name": name,
        "shape": tuple(shape),
        "dtype": first.dtype,
        "file": first.file,
        "offset": first.offset,
    }


__all__ = [
    "Int4Tensor",
    "Mxfp4Tensor",
    "PackedStack",
    "PackedTensor",
    "packed",
    "packed_int4",
    "packed_mxfp4",
    "packed_stack",
]
