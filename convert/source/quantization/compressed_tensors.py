"""compressed-tensors, the format of llm-compressor: integers, FP8, NVFP4 and MXFP4.

https://github.com/vllm-project/compressed-tensors. A module's tensors show how it is packed:

- ``weight_packed`` (int32), ``weight_scale``, ``weight_shape``: integers of 2, 4 or 8 bits in words along a
  row. 2 ** (bits - 1) is added to each. Asymmetric ones have ``weight_zero_point``, packed along outputs.
- ``weight`` (int8) and ``weight_scale``: integers as they are, perhaps with ``weight_zero_point``.
- ``weight`` (FP8) and ``weight_scale``: see ``fp8.py``.
- ``weight_packed`` (bytes) and ``weight_scale``: with ``weight_global_scale`` NVFP4, else MXFP4.

``weight_g_idx`` is the group of each column, where columns were ordered by activation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.errors import CheckpointError, UnsupportedError
from convert.source.config import Config
from convert.source.packed import GROUP, Float32, dequantize_groups, unpack_bits
from convert.source.packed_tensor import packed, packed_int4
from convert.source.quantization.fp8 import FLOATS, fp8_tensor
from convert.source.quantization.mxfp4 import mxfp4_matrix
from convert.source.quantization.nvfp4 import nvfp4_tensor
from convert.source.quantization.parts import (
    Tensors,
    checked_groups,
    ending_with,
    even_groups,
    take,
    take_activations,
    take_if_any,
)
from convert.source.tensor import SourceTensor

_BITS = (2, 4, 8)
_PACKED, _SCALE, _SHAPE = ".weight_packed", ".weight_scale", ".weight_shape"
_ZEROS, _INDEX, _FACTOR = ".weight_zero_point", ".weight_g_idx", ".weight_global_scale"
_WHERE = "config.json: quantization_config"


def unpack_compressed_tensors(tensors: Tensors, quantization: Config) -> None:
    """Put the parts of each matrix together under its plain name.

    Raises:
        UnsupportedError: numbers are packed in a way that is not known.
        CheckpointError: a part is missing or has the wrong shape.
    """
    _refuse_changes(quantization)
    schemes = list(_schemes(quantization))
    for stem in ending_with(tensors, _PACKED):
        if tensors[stem + _PACKED].dtype == "U8":
            _floats(tensors, stem)
        else:
            _words(tensors, stem, schemes)
    for stem in ending_with(tensors, _SCALE):
        _plain(tensors, stem, schemes)


def _refuse_changes(quantization: Config) -> None:
    """Refuse what changes the computation beyond the numbers of weights."""
    sparsity = quantization.get("sparsity_config", {})
    if isinstance(sparsity, dict) and sparsity.get("format", "dense") != "dense":
        raise UnsupportedError(
            f"{_WHERE}: sparsity_config has the format {sparsity.get('format')!r}; only dense is read"
        )
    transforms = quantization.get("transform_config", {})
    if isinstance(transforms, dict) and transforms.get("config_groups"):
        raise UnsupportedError(
            f"{_WHERE}: transform_config turns activations while the model runs, which llama.cpp cannot"
        )


def _schemes(quantization: Config) -> Iterator[dict[str, Any]]:
    """Yield how weights are packed, of each group of modules."""
    groups = quantization.get("config_groups", {})
    if not isinstance(groups, dict):
        raise CheckpointError(f"{_WHERE}: config_groups must be a table, not {groups!r:.60}")
    for name, group in groups.items():
        weights = group.get("weights") if isinstance(group, dict) else None
        if not isinstance(weights, dict):
            raise CheckpointError(f"{_WHERE}: {name} does not say how weights are packed")
        yield weights


# -- integers -----------------------------------------------------------------------------------------


def _words(tensors: Tensors, stem: str, schemes: Sequence[dict[str, Any]]) -> None:
    """Put integers in 32-bit words together."""
    values = tensors.pop(stem + _PACKED)
    scales, said = (take(tensors, stem + part, values.name) for part in (_SCALE, _SHAPE))
    zeros, index = (take_if_any(tensors, stem + part) for part in (_ZEROS, _INDEX))
    others = (*zeros, *index, said, *take_activations(tensors, f"{stem}."))
    shape, name = _shape(said), f"{stem}.weight"
    scheme = _fitting(values, scales, shape, schemes)
    bits = scheme["num_bits"]
    symmetric = scheme.get("symmetric", True)
    if bool(zeros) == bool(symmetric):
        raise CheckpointError(
            f"{_WHERE}: symmetric is {symmetric}, and tensor {stem + _ZEROS} is "
            f"{'there' if zeros else 'missing'}"
        )
    parts = (values, scales, *others)
    if bits == 4 and not _is_ordered(index) and not zeros and scales.shape[1] * GROUP == shape[1]:
        tensors[name] = packed_int4(name, shape, parts)
        return
    groups = partial(_groups, index, shape[1], scales.shape[1], scheme.get("group_size"))
    zero = zeros[0] if zeros else None
    if zero is not None and zero.shape != (-(-shape[0] * bits // 32), scales.shape[1]):
        raise CheckpointError(
            f"tensor {zero.name} has the shape {zero.shape}, which does not fit {values.name}"
        )
    tensors[name] = packed(
        name, shape, parts, partial(_of_words, values, scales, zero, bits, shape, groups)
    )


def _of_words(
    values: SourceTensor,
    scales: SourceTensor,
    zeros: SourceTensor | None,
    bits: int,
    shape: tuple[int, int],
    groups: Any,
) -> Float32:
    rows, columns = shape
    integers = unpack_bits(values.array(), bits)[:, :columns]
    zero: Any = 1 << (bits - 1)
    if zeros is not None:  # packed along the outputs
        zero = unpack_bits(np.ascontiguousarray(zeros.array().T), bits)[:, :rows].T
    return dequantize_groups(integers, zero, scales.array(), groups())


def _is_ordered(index: Sequence[SourceTensor]) -> bool:
    """Whether there is an order of columns; one of -1 is none."""
    return bool(index) and bool((index[0].array() >= 0).all())


def _groups(
    index: Sequence[SourceTensor], columns: int, n_groups: int, size: int | None
) -> NDArray[np.intp]:
    if _is_ordered(index):
        return checked_groups(index[0], columns, n_groups)
    usable = size if isinstance(size, int) and size > 0 and -(-columns // size) == n_groups else None
    return even_groups(columns, n_groups, usable)


def _fitting(
    values: SourceTensor,
    scales: SourceTensor,
    shape: tuple[int, int],
    schemes: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return the scheme whose bits fill the words of a row and whose groups have a scale each."""
    rows, columns = shape
    known = [
        scheme
        for scheme in schemes
        if scheme.get("type", "int") == "int" and scheme.get("num_bits") in _BITS
    ]
    for scheme in known:
        size = scheme.get("group_size") or columns
        n_groups = -(-columns // size) if isinstance(size, int) and size > 0 else 1
        if (
            values.dtype == "I32"
            and values.shape == (rows, -(-columns * scheme["num_bits"] // 32))
            and scales.shape == (rows, n_groups)
        ):
            return scheme
    if schemes and not known:
        raise UnsupportedError(
            f"{_WHERE}: weights have num_bits {schemes[0].get('num_bits')!r} and type "
            f"{schemes[0].get('type')!r}; packed integers of 2, 4 and 8 bits are read"
        )
    raise CheckpointError(
        f"tensor {values.name} is {values.dtype} {values.shape} with scales {scales.shape}; its "
        f"weight_shape says {shape}, which does not fit num_bits and group_size of config.json"
    )


def _shape(said: SourceTensor) -> tuple[int, int]:
    numbers = said.array().reshape(-1).tolist() if said.n_bytes <= 64 else []
    if len(numbers) != 2 or not all(type(n) is int and 0 < n < 1 << 31 for n in numbers):
        raise CheckpointError(f"tensor {said.name} does not hold the two sizes of a matrix")
    return numbers[0], numbers[1]


# -- numbers as they are ------------------------------------------------------------------------------


def _plain(tensors: Tensors, stem: str, schemes: Sequence[dict[str, Any]]) -> None:
    """Put int8 or FP8 weights and their scales together."""
    scales, name = tensors.pop(stem + _SCALE), f"{stem}.weight"
    values = take(tensors, name, scales.name)
    zeros, index = (take_if_any(tensors, stem + part) for part in (_ZEROS, _INDEX))
    others = (*zeros, *index, *take_activations(tensors, f"{stem}."))
    if values.dtype in FLOATS:
        blocks = [tuple(scheme["block_structure"]) for scheme in schemes if scheme.get("block_structure")]
        tensors[name] = fp8_tensor(values, scales, blocks[0] if blocks else None, others)
        return
    if values.dtype != "I8" or len(values.shape) != 2:
        raise UnsupportedError(
            f"tensor {name} is {values.dtype} with a scale {scales.name}; read are int8 and FP8. "
            "Weights that are not compressed yet (quantization_status) can be: llm-compressor saves them "
            "with save_pretrained(save_compressed=True)"
        )
    rows, columns = values.shape
    n_groups = scales.shape[1] if len(scales.shape) == 2 else 1
    if math.prod(scales.shape) not in (1, rows * n_groups) or columns % max(1, n_groups):
        raise CheckpointError(
            f"tensor {scales.name} has the shape {scales.shape}, which does not fit {values.shape}"
        )
    for zero in zeros:
        if zero.shape != scales.shape or zero.dtype != "I8":
            raise CheckpointError(
                f"tensor {zero.name} is {zero.dtype} {zero.shape}; {scales.name} is {scales.shape}"
            )
    groups = partial(_groups, index, columns, n_groups, None)
    numbers = partial(_of_bytes, values, scales, zeros[0] if zeros else None, n_groups, groups)
    tensors[name] = packed(name, values.shape, (values, scales, *others), numbers)


def _of_bytes(
    values: SourceTensor, scales: SourceTensor, zeros: SourceTensor | None, n_groups: int, groups: Any
) -> Float32:
    shape = (values.shape[0], n_groups)
    factors = np.broadcast_to(scales.array().reshape(-1, n_groups), shape)
    zero: Any = 0 if zeros is None else np.broadcast_to(zeros.array().reshape(-1, n_groups), shape)
    return dequantize_groups(values.array(), zero, factors, groups())


def _floats(tensors: Tensors, stem: str) -> None:
    """Put 4-bit floats together: MXFP4, or NVFP4, whose global scale divides."""
    values, name = tensors.pop(stem + _PACKED), f"{stem}.weight"
    scales, others = take(tensors, stem + _SCALE, values.name), take_activations(tensors, f"{stem}.")
    if scales.dtype == "U8":
        tensors[name] = mxfp4_matrix(name, values, scales, others)
        return
    factor = take(tensors, stem + _FACTOR, values.name)
    tensors[name] = nvfp4_tensor(name, values, scales, factor, others, divides=True)
