"""AWQ: 4-bit integers with inputs first, in the layout of its GEMM kernels.

For a module with ``in`` inputs and ``out`` outputs (https://github.com/casper-hansen/AutoAWQ):

- ``qweight``: int32 (in, out / 8); the eight parts of a word, the lowest bits first, are the outputs
  0, 2, 4, 6, 1, 3, 5, 7;
- ``qzeros``: int32 (groups, out / 8), in the same order;
- ``scales``: (groups, out).

A number is (value - zero) * scale.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from convert.errors import CheckpointError, UnsupportedError
from convert.source.config import Config
from convert.source.packed import Bytes, Float32, dequantize_groups, unpack_bits
from convert.source.packed_tensor import packed
from convert.source.quantization.parts import Tensors, ending_with, even_groups, take
from convert.source.tensor import Array, SourceTensor

_ORDER = np.argsort([0, 2, 4, 6, 1, 3, 5, 7])
"""The place in a word of each of its eight outputs."""


def unpack_awq(tensors: Tensors, quantization: Config) -> None:
    """Put the parts of each matrix together under its plain name.

    Raises:
        UnsupportedError: a layout that is not known.
        CheckpointError: a part is missing or has the wrong shape.
    """
    bits = quantization.get("bits", quantization.get("w_bit", 4))
    layout = str(quantization.get("version", "gemm")).lower()
    if bits != 4 or layout not in ("gemm", "exllama"):
        raise UnsupportedError(
            f"config.json: quantization_config has {bits!r} bits in the version {layout!r}; of awq are "
            "read 4 bits in the version gemm. AutoAWQ can save it so"
        )
    for stem in ending_with(tensors, ".qweight"):
        values = tensors.pop(f"{stem}.qweight")
        zeros, scales = (take(tensors, f"{stem}.{part}", values.name) for part in ("qzeros", "scales"))
        shape = _shape(values, zeros, scales)
        numbers = partial(_numbers, values, zeros, scales)
        tensors[f"{stem}.weight"] = packed(f"{stem}.weight", shape, (values, scales, zeros), numbers)


def _shape(values: SourceTensor, zeros: SourceTensor, scales: SourceTensor) -> tuple[int, int]:
    if {values.dtype, zeros.dtype} == {"I32"} and len(values.shape) == len(scales.shape) == 2:
        (n_in, words), (n_groups, n_out) = values.shape, scales.shape
        if words * 8 == n_out and zeros.shape == (n_groups, words) and n_groups and not n_in % n_groups:
            return n_out, n_in
    raise CheckpointError(
        f"tensor {values.name} is {values.dtype} {values.shape}, {zeros.name} {zeros.shape} and "
        f"{scales.name} {scales.shape}, which do not go together"
    )


def _numbers(values: SourceTensor, zeros: SourceTensor, scales: SourceTensor) -> Float32:
    """Return the numbers, outputs first."""
    integers, zero = _outputs(values.array()), _outputs(zeros.array())
    groups = even_groups(integers.shape[1], zero.shape[1])
    return dequantize_groups(integers, zero, scales.array().T, groups)


def _outputs(words: Array) -> Bytes:
    """Return the integers of each output: ``(out, in or groups)``."""
    integers = unpack_bits(words, 4)
    return integers.reshape(len(words), -1, 8)[:, :, _ORDER].reshape(len(words), -1).T
