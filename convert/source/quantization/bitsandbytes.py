"""bitsandbytes: NF4 and FP4 (4 bits) and INT8 (LLM.int8()).

https://github.com/bitsandbytes-foundation/bitsandbytes. Beside a 4-bit ``weight`` lie:

- ``weight.quant_map``: the 16 numbers;
- ``weight.absmax``: the largest of each block. Bytes with double quantization; ``weight.nested_quant_map``,
  ``weight.nested_absmax`` and an offset then give the numbers;
- ``weight.quant_state.bitsandbytes__nf4`` or ``__fp4``: JSON with shape and block size.

An int8 ``weight`` has ``SCB``, the largest of each row; a number is weight * SCB / 127.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from convert.errors import CheckpointError
from convert.files.json_file import parse_json
from convert.source.config import Config
from convert.source.packed import Float32, dequantize_bytes, dequantize_codes
from convert.source.packed_tensor import packed
from convert.source.quantization.parts import Tensors, ending_with, take, take_if_any
from convert.source.tensor import Array, SourceTensor

_STATES = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
_MOST_STATE = 1 << 12  # bytes of JSON
_INT8_LARGEST = 127


def unpack_bitsandbytes(tensors: Tensors, quantization: Config) -> None:
    """Put the parts of each matrix together under its name.

    Raises:
        CheckpointError: a part is missing or has the wrong shape.
    """
    for ending in _STATES:
        for name in ending_with(tensors, ending):
            _codes(tensors, name, tensors.pop(name + ending))
    for stem in ending_with(tensors, ".SCB"):
        _int8(tensors, stem)


def _codes(tensors: Tensors, name: str, said: SourceTensor) -> None:
    if said.dtype != "U8" or said.n_bytes > _MOST_STATE:
        raise CheckpointError(
            f"tensor {said.name} is {said.dtype} {said.shape}; it should hold JSON in bytes"
        )
    state = parse_json(said.array().tobytes(), f"tensor {said.name}")
    values, codes, largest = (
        take(tensors, name + part, said.name) for part in ("", ".quant_map", ".absmax")
    )
    nested = take_if_any(tensors, f"{name}.nested_quant_map", f"{name}.nested_absmax")
    shape: Any = state.get("shape")
    block: Any = state.get("blocksize")
    if not isinstance(shape, list) or len(shape) != 2 or not all(map(_is_count, [*shape, block])):
        raise CheckpointError(
            f"tensor {said.name} gives the shape {shape!r:.60} and the block {block!r:.60}"
        )
    count, n_blocks = math.prod(shape), math.prod(largest.shape)
    is_nested = largest.dtype == "U8"
    if (
        values.n_bytes != -(-count // 2)
        or n_blocks != -(-count // block)
        or math.prod(codes.shape) != 16
        or len(nested) != 2 * is_nested
        or (is_nested and not _fits(state, nested, n_blocks))
    ):
        raise CheckpointError(
            f"tensor {name} has {values.n_bytes} bytes and {n_blocks} blocks, which do not make {shape[0]}x"
            f"{shape[1]} numbers of 4 bits in blocks of {block}"
        )
    numbers = partial(_of_codes, values, codes, largest, nested, state)
    tensors[name] = packed(name, shape, (values, codes, largest, *nested, said), numbers)


def _fits(state: dict[str, Any], nested: list[SourceTensor], n_blocks: int) -> bool:
    block: Any = state.get("nested_blocksize")
    offset = state.get("nested_offset")
    return (
        _is_count(block)
        and isinstance(offset, int | float)
        and math.prod(nested[0].shape) == 256
        and math.prod(nested[1].shape) == -(-n_blocks // block)
    )


def _of_codes(
    values: SourceTensor,
    codes: SourceTensor,
    largest: SourceTensor,
    nested: list[SourceTensor],
    state: dict[str, Any],
) -> Float32:
    scales = _flat(largest)
    if nested:
        table, of_blocks = map(_flat, nested)
        scales = dequantize_bytes(
            scales, table, of_blocks, state["nested_blocksize"], state["nested_offset"]
        )
    rows, columns = state["shape"]
    # the bytes may be stored as another type (bnb_4bit_quant_storage)
    data = np.ascontiguousarray(values.array()).reshape(-1).view(np.uint8)
    made = dequantize_codes(data, _flat(codes), scales, state["blocksize"], rows * columns)
    return made.reshape(rows, columns)


def _int8(tensors: Tensors, stem: str) -> None:
    scales, name = tensors.pop(f"{stem}.SCB"), f"{stem}.weight"
    values = take(tensors, name, scales.name)
    others = take_if_any(tensors, f"{stem}.weight_format")
    if values.dtype != "I8" or len(values.shape) != 2 or scales.shape != values.shape[:1]:
        raise CheckpointError(
            f"tensor {name} is {values.dtype} {values.shape} and {scales.name} is {scales.shape}; expected "
            "are int8 and a number for each row"
        )
    if any(other.array().any() for other in others):  # 0 is rows as they are; others are kernels' layouts
        raise CheckpointError(
            f"tensor {others[0].name} names a layout of a kernel; bitsandbytes saves rows"
        )
    tensors[name] = packed(name, values.shape, (values, scales, *others), partial(_of_int8, values, scales))


def _of_int8(values: SourceTensor, scales: SourceTensor) -> Float32:
    exact = values.array().astype(np.float64) * (scales.array().astype(np.float64) / _INT8_LARGEST)[:, None]
    return exact.astype(np.float32)


def _flat(tensor: SourceTensor) -> Array:
    array = tensor.array().reshape(-1)
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 31
