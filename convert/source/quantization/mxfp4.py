"""MXFP4: experts as gpt-oss has them (``NAME_blocks`` and ``NAME_scales``), and matrices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from convert.errors import CheckpointError
from convert.source.config import Config
from convert.source.packed import GROUP, Float32, dequantize_mxfp4
from convert.source.packed_tensor import PackedTensor, packed, packed_mxfp4
from convert.source.quantization.parts import Tensors, ending_with, take
from convert.source.tensor import SourceTensor

_BLOCKS, _SCALES = "_blocks", "_scales"


def unpack_mxfp4(tensors: Tensors, quantization: Config) -> None:
    """Put blocks and scales together under their plain name.

    Raises:
        CheckpointError: one of the two is missing or has the wrong shape.
    """
    for stem in ending_with(tensors, _BLOCKS):
        blocks = tensors.pop(stem + _BLOCKS)
        scales = take(tensors, stem + _SCALES, blocks.name)
        if (
            len(scales.shape) != 3
            or blocks.shape != (*scales.shape, GROUP // 2)
            or {blocks.dtype, scales.dtype} != {"U8"}
        ):
            raise CheckpointError(
                f"tensor {blocks.name} is {blocks.dtype} {blocks.shape} and {scales.name} is "
                f"{scales.dtype} {scales.shape}; MXFP4 has U8 (experts, outputs, groups, 16) and U8 "
                "(experts, outputs, groups)"
            )
        tensors[stem] = packed_mxfp4(stem, blocks, scales, GROUP)


def mxfp4_matrix(
    name: str, values: SourceTensor, scales: SourceTensor, others: Sequence[SourceTensor]
) -> PackedTensor:
    """Return a matrix in MXFP4: two numbers in a byte, and an exponent for each 32 in a row.

    Raises:
        CheckpointError: a part has the wrong shape.
    """
    rows, half = values.shape if len(values.shape) == 2 else (0, 0)
    if (
        {values.dtype, scales.dtype} != {"U8"}
        or 2 * half % GROUP
        or scales.shape != (rows, 2 * half // GROUP)
    ):
        raise CheckpointError(
            f"tensor {values.name} is {values.dtype} {values.shape}, {scales.name} is {scales.dtype} "
            f"{scales.shape}; MXFP4 has U8 (rows, columns / 2) and U8 (rows, columns / 32)"
        )
    numbers = partial(_of_matrix, values, scales)
    return packed(name, (rows, 2 * half), (values, scales, *others), numbers)


def _of_matrix(values: SourceTensor, scales: SourceTensor) -> Float32:
    return dequantize_mxfp4(values.array().reshape(*scales.shape, GROUP // 2), scales.array())
