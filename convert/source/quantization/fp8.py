"""FP8 weights with a scale for each block (DeepSeek and Qwen: 128x128), for each row, or for the tensor.

The scales are ``NAME_scale_inv`` (transformers, DeepSeek) or ``NAME_scale`` (fbgemm, AutoFP8, ModelOpt).
Both are factors of the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from convert.errors import CheckpointError
from convert.source.config import Config
from convert.source.packed import Float32, dequantize_fp8
from convert.source.packed_tensor import PackedTensor, packed, packed_stack
from convert.source.quantization.parts import Tensors, ending_with, take, take_activations
from convert.source.tensor import SourceTensor

FLOATS = ("F8_E4M3", "F8_E5M2")
_ENDINGS = ("_scale_inv", ".weight_scale")

Block = tuple[int, int]


def unpack_fp8(tensors: Tensors, quantization: Config) -> None:
    """Put values and scales together under the values' name.

    Raises:
        CheckpointError: a part is missing or has the wrong shape.
    """
    usual = [128, 128] if quantization.get("quant_method") == "fp8" else None
    said = quantization.get("weight_block_size", usual)
    block = None if said is None else _block(said)
    for ending in _ENDINGS:
        for stem in ending_with(tensors, ending):
            scales = tensors.pop(stem + ending)
            name = stem if ending == "_scale_inv" else f"{stem}.weight"
            values = take(tensors, name, scales.name)
            others = take_activations(tensors, _module(name))
            tensors[name] = fp8_tensor(values, scales, block, others)


def fp8_tensor(
    values: SourceTensor, scales: SourceTensor, block: Block | None, others: Sequence[SourceTensor] = ()
) -> PackedTensor:
    """Return the numbers of FP8 values, a matrix or a stack of experts.

    Args:
        block: rows and columns that share a scale. None: as many as the scales' shape says.
    """
    found = _fitting(values, scales, block)
    parts, shape = (values, scales, *others), values.shape
    if len(shape) == 2:
        return packed(values.name, shape, parts, partial(_numbers, values, scales, found, None))
    return packed_stack(values.name, shape, parts, partial(_numbers, values, scales, found))


def _numbers(values: SourceTensor, scales: SourceTensor, block: Block, expert: int | None) -> Float32:
    numbers, factors = values.array(), scales.array()
    if expert is not None:
        numbers, factors = numbers[expert], factors[expert] if factors.size > 1 else factors
    rows, columns = (-(-n // size) for n, size in zip(numbers.shape, block, strict=True))
    return dequantize_fp8(numbers, factors.reshape(rows, columns), block)


def _fitting(values: SourceTensor, scales: SourceTensor, block: Block | None) -> Block:
    """Return the rows and columns that share a scale."""
    *stack, rows, columns = values.shape if len(values.shape) > 1 else (1, 1)
    shape = scales.shape[len(stack) :] if scales.shape[: len(stack)] == tuple(stack) else scales.shape
    if values.dtype in FLOATS and len(values.shape) in (2, 3):
        if math.prod(shape) == 1:
            return (rows, columns)
        if shape in ((rows,), (rows, 1)):
            return (1, columns)
        if block and shape == tuple(-(-n // size) for n, size in zip((rows, columns), block, strict=True)):
            return min(block[0], rows), min(block[1], columns)
        if not block and len(shape) == 2 and not rows % shape[0] and not columns % shape[1]:
            return (rows // shape[0], columns // shape[1])
    size = "x".join(map(str, block)) if block else "equal size"
    raise CheckpointError(
        f"tensor {values.name} is {values.dtype} {values.shape} and {scales.name} is {scales.shape}; "
        f"expected are F8_E4M3 and one scale, a scale for each row, or a scale for each block of {size}"
    )


def _block(said: object) -> Block:
    if not isinstance(said, list) or len(said) != 2 or not all(type(n) is int and n > 0 for n in said):
        raise CheckpointError(
            f"config.json: quantization_config: weight_block_size must be two numbers, not {said!r:.60}"
        )
    return said[0], said[1]


def _module(name: str) -> str:
    """Return what the names of a module's other parts begin with."""
    return f"{name.removesuffix('.weight')}." if name.endswith(".weight") else f"{name}_"
