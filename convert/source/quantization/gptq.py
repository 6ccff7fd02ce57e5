"""GPTQ: integers of 2, 3, 4 or 8 bits, with inputs first.

For a module with ``in`` inputs and ``out`` outputs (https://github.com/ModelCloud/GPTQModel):

- ``qweight``: int32 (in * bits / 32, out), words along the inputs;
- ``qzeros``: int32 (groups, out * bits / 32), words along the outputs; the zero is one more than stored, in
  the format ``gptq_v2`` as stored;
- ``scales``: (groups, out);
- ``g_idx``: the group of each input. Missing: neighbours in groups of ``group_size``.

A number is (value - zero) * scale.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from convert.errors import CheckpointError, UnsupportedError
from convert.source.config import Config
from convert.source.packed import Float32, dequantize_groups, unpack_bits
from convert.source.packed_tensor import packed
from convert.source.quantization.parts import (
    Tensors,
    checked_groups,
    ending_with,
    even_groups,
    take,
    take_if_any,
)
from convert.source.tensor import SourceTensor

_BITS = (2, 3, 4, 8)
_ADDED = {"gptq": 1, "gptq_v2": 0}
"""What is added to stored zeros, by ``checkpoint_format``."""


def unpack_gptq(tensors: Tensors, quantization: Config) -> None:
    """Put the parts of each matrix together under its plain name.

    Raises:
        UnsupportedError: a layout that is not known.
        CheckpointError: a part is missing or has the wrong shape.
    """
    bits = quantization.integer("bits")
    layout = quantization.get("checkpoint_format") or quantization.get("format") or "gptq"
    if bits not in _BITS or layout not in _ADDED:
        raise UnsupportedError(
            f"config.json: quantization_config has {bits} bits in the format {layout!r}; of gptq are read "
            f"{', '.join(map(str, _BITS))} bits in the formats gptq and gptq_v2. GPTQModel can save it so"
        )
    for stem in ending_with(tensors, ".qweight"):
        _unpack(tensors, stem, bits, _ADDED[layout], quantization.get("group_size", -1))


def _unpack(tensors: Tensors, stem: str, bits: int, added: int, size: int) -> None:
    values = tensors.pop(f"{stem}.qweight")
    zeros, scales = (take(tensors, f"{stem}.{part}", values.name) for part in ("qzeros", "scales"))
    index = take_if_any(tensors, f"{stem}.g_idx")
    if {values.dtype, zeros.dtype} != {"I32"} or {len(t.shape) for t in (values, zeros, scales)} != {2}:
        raise CheckpointError(
            f"tensor {values.name} is {values.dtype} {values.shape}; GPTQ has int32 matrices"
        )
    n_in, (n_groups, n_out) = values.shape[0] * 32 // bits, scales.shape
    if values.shape[1] != n_out or zeros.shape != (n_groups, -(-n_out * bits // 32)):
        raise CheckpointError(
            f"tensor {values.name} is {values.shape}, {zeros.name} {zeros.shape} and {scales.name} "
            f"{scales.shape}, which do not go together with {bits} bits"
        )
    if not index and n_groups != (-(-n_in // size) if isinstance(size, int) and size > 0 else 1):
        raise CheckpointError(
            f"tensor {scales.name} has {n_groups} groups; config.json says groups of {size}"
        )
    parts = (values, scales, zeros, *index)
    numbers = partial(_numbers, values, zeros, scales, index, bits, added)
    tensors[f"{stem}.weight"] = packed(f"{stem}.weight", (n_out, n_in), parts, numbers)


def _numbers(
    values: SourceTensor,
    zeros: SourceTensor,
    scales: SourceTensor,
    index: list[SourceTensor],
    bits: int,
    added: int,
) -> Float32:
    """Return the numbers, outputs first."""
    integers = unpack_bits(np.ascontiguousarray(values.array().T), bits)
    n_groups, n_out = scales.shape
    stored = unpack_bits(zeros.array(), bits)[:, :n_out]
    if added and stored.max(initial=0) == (1 << bits) - 1:
        raise CheckpointError(
            f"tensor {zeros.name} has the zero point {stored.max()} plus 1, which {bits} bits cannot hold: "
            "programs differ in what that means. GPTQModel can save the model as gptq_v2"
        )
    n_in = integers.shape[1]
    groups = checked_groups(index[0], n_in, n_groups) if index else even_groups(n_in, n_groups)
    return dequantize_groups(integers, stored.T.astype(np.int16) + added, scales.array().T, groups)
