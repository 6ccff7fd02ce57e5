"""NVFP4: 4-bit floats in pairs, a scale for each 16 in a row, and one scale for the tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from convert.errors import CheckpointError
from convert.source.packed import Float32, dequantize_nvfp4
from convert.source.packed_tensor import PackedTensor, packed
from convert.source.tensor import SourceTensor

_GROUP = 16


def nvfp4_tensor(
    name: str,
    values: SourceTensor,
    scales: SourceTensor,
    factor: SourceTensor,
    others: Sequence[SourceTensor],
    *,
    divides: bool,
) -> PackedTensor:
    """Return the numbers of NVFP4.

    Args:
        factor: of the whole tensor.
        divides: whether numbers are divided by it, as in compressed-tensors; ModelOpt's is a factor.

    Raises:
        CheckpointError: a part has the wrong shape.
    """
    rows, half = values.shape if len(values.shape) == 2 else (0, 0)
    if (
        (values.dtype, scales.dtype) != ("U8", "F8_E4M3")
        or scales.shape != (rows, 2 * half // _GROUP)
        or 2 * half % _GROUP
        or math.prod(factor.shape) != 1
    ):
        raise CheckpointError(
            f"tensor {values.name} is {values.dtype} {values.shape}, {scales.name} is {scales.dtype} "
            f"{scales.shape}; NVFP4 has U8 (rows, columns / 2) and F8_E4M3 (rows, columns / 16)"
        )
    numbers = partial(_numbers, values, scales, factor, divides)
    return packed(name, (rows, 2 * half), (values, scales, factor, *others), numbers)


def _numbers(values: SourceTensor, scales: SourceTensor, factor: SourceTensor, divides: bool) -> Float32:
    number = float(factor.array().reshape(-1)[0])
    if not 0 < number < math.inf:
        raise CheckpointError(f"tensor {factor.name} is {number}, which is no scale")
    return dequantize_nvfp4(values.array(), scales.array(), 1 / number if divides else number)
