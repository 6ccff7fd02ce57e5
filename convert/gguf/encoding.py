"""Numbers as GGUF files store them: float32, float16, bfloat16 and q8_0, bit for bit as ggml rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from convert.gguf.formats import FORMATS
from convert.source.tensor import Array

Q8_0_BLOCK = FORMATS[Kind.Q8_0].block_length
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_Q8_0 = np.dtype([("scale", "<f2"), ("quants", "i1", (Q8_0_BLOCK,))])
_BELOW_HALF = np.float32(0.49999997)  # the number before 0.5: adding it rounds halves away from zero only
_EXPONENT: dict[Any, int] = {Kind.F32: 0x7F800000, Kind.BF16: 0x7F80, Kind.F16: 0x7C00}
"""The exponent's bits; all of them are set in infinities and NaNs only."""


def encode(values: Array, kind: Kind) -> Array:
    """Return numbers in the form of a file, rounded to nearest, ties to even.

    Args:
        values: floating-point numbers, one axis, contiguous; for q8_0 a multiple of 32.
        kind: F32, F16, BF16 or Q8_0.

    Returns:
        An array whose bytes are the file's; it may share memory with ``values``.

    Raises:
        ValueError: there is a NaN or an infinity, or a number that is too large for ``kind``.
    """
    if kind == Kind.Q8_0:
        return _encode_q8_0(as_float32(values))
    encoded = _ENCODERS[kind](values)
    bits = encoded.view(np.uint32 if kind == Kind.F32 else np.uint16)
    limit = bits.dtype.type(_EXPONENT[kind])
    sign_off = bits.dtype.type(2 ** (bits.itemsize * 8 - 1) - 1)
    if np.bitwise_and(bits, sign_off).max(initial=0) >= limit:
        raise _unfit(as_float32(values), kind)
    return encoded


def as_float32(values: Array) -> NDArray[np.float32]:
    """Return numbers of any floating-point format as float32."""
    if values.dtype == _BFLOAT16:  # its bits are the upper half of float32's
        wide = values.view(np.uint16).astype(np.uint32)
        return np.left_shift(wide, 16, out=wide).view(np.float32)
    return values.astype(np.float32, copy=False)


def _as_float16(values: Array) -> NDArray[np.float16]:
    with np.errstate(over="ignore", under="ignore"):
        return (values if values.dtype == np.float16 else as_float32(values)).astype(np.float16, copy=False)


def _as_bfloat16(values: Array) -> NDArray[np.uint16]:
    if values.dtype == _BFLOAT16:
        return values.view(np.uint16)
    bits = as_float32(values).view(np.uint32)
    odd = np.right_shift(bits, 16)
    odd &= np.uint32(1)
    odd += np.uint32(0x7FFF)
    odd += bits
    rounded = np.right_shift(odd, 16, out=odd).astype(np.uint16)
    if np.isnan(values).any():  # a NaN's bits may have been carried away
        rounded[np.isnan(values)] = 0x7FC0
    return rounded


_ENCODERS: dict[Kind, Callable[[Array], Array]] = {
    Kind.F32: as_float32,
    Kind.F16: _as_float16,
    Kind.BF16: _as_bfloat16,
}


def _encode_q8_0(values: NDArray[np.float32]) -> Array:
    """Blocks of 32 numbers: the largest / 127 as float16, then each divided by it, halves away from zero.

    As ``quantize_row_q8_0_ref`` in ggml-quants.c.
    """
    blocks = values.reshape(-1, Q8_0_BLOCK)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore", under="ignore"):
        scale = np.maximum(np.abs(blocks.max(axis=1)), np.abs(blocks.min(axis=1))) / np.float32(127)
        inverse = np.float32(1) / scale
        inverse[~np.isfinite(inverse)] = 0  # a block of zeros, or of what float16 cannot tell from zero
        encoded = np.empty(len(blocks), _Q8_0)
        encoded["scale"] = scale
    if not np.isfinite(encoded["scale"]).all():
        raise _unfit(values, Kind.Q8_0)
    scaled = blocks * inverse[:, None]
    scaled += np.copysign(_BELOW_HALF, scaled)
    encoded["quants"] = scaled  # the cast cuts off the fraction
    return encoded


def _unfit(values: NDArray[np.float32], kind: Kind) -> ValueError:
    wrong = values[~np.isfinite(values)]
    if wrong.size:
        return ValueError(f"it holds {wrong[0]}")
    largest = values[np.abs(values).argmax()]
    return ValueError(
        f"it holds {largest:g}, which is too large for {kind.name.lower()}; bf16 would hold it"
    )
