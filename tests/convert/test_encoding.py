"""Numbers are rounded bit for bit as ggml rounds them."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from convert.gguf.encoding import as_float32, encode
from tinker_local.llama.ggml import bind

_pointer = ctypes.c_void_p
_quantize = bind(
    "ggml_quantize_chunk",
    ctypes.c_size_t,
    ctypes.c_int,
    _pointer,
    _pointer,
    *[ctypes.c_int64] * 3,
    _pointer,
)
_to_rows = {
    Kind.F16: bind("ggml_fp32_to_fp16_row", None, _pointer, _pointer, ctypes.c_int64),
    Kind.BF16: bind("ggml_fp32_to_bf16_row_ref", None, _pointer, _pointer, ctypes.c_int64),
}
SIZES = {Kind.F16: 64, Kind.BF16: 64, Kind.Q8_0: 34}  # bytes of 32 numbers


def by_ggml(values: NDArray[np.float32], kind: Kind) -> bytes:
    out = np.zeros(values.size // 32 * SIZES[kind], np.uint8)
    if kind == Kind.Q8_0:
        _quantize(kind, values.ctypes.data, out.ctypes.data, 0, values.size // 32, 32, None)
    else:
        _to_rows[kind](values.ctypes.data, out.ctypes.data, values.size)
    return out.tobytes()


def hard_numbers() -> NDArray[np.float32]:
    """Random bits as float32, ties of every rounding, and both zeros; nothing above 6e4."""
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2**32, 1 << 17, np.uint32).view(np.float32)
    ties = (rng.integers(-127, 128, (1024, 32)) + rng.choice([0, 0.5], (1024, 32))).astype(np.float32)
    ties[:, 0] = 127  # so that the scale is 1
    halves = (rng.integers(0, 2**15, 1 << 15).astype(np.uint32) << 16 | 0x8000).view(np.float32)
    edges = np.array([0, -0.0, 2**-24, 2**-25, 3 * 2**-25, 65504, 2**-14, 1e-8, 0.49999997], np.float32)
    numbers = np.concatenate([ties.reshape(-1), np.resize(edges, 96), bits, halves])
    numbers = numbers[np.isfinite(numbers) & (np.abs(numbers) < 6e4)]
    return np.ascontiguousarray(numbers[: numbers.size // 32 * 32])


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0])
def test_equals_ggml(kind: Kind) -> None:
    values = hard_numbers()
    if kind == Kind.Q8_0:  # 1 / scale is infinite for the smallest, and ggml's result undefined
        values = values[np.abs(values) > 1e-30]
        values = np.ascontiguousarray(values[: values.size // 32 * 32])
    assert encode(values, kind).tobytes() == by_ggml(values, kind)


def test_blocks_of_nothing_are_zeros() -> None:
    for values in (np.zeros(64, np.float32), np.full(64, 1e-42, np.float32)):
        assert encode(values, Kind.Q8_0).tobytes() == bytes(68)


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_formats_of_checkpoints(kind: Kind, dtype: Any) -> None:
    values = np.random.default_rng(1).standard_normal(640).astype(dtype)
    wide = values.astype(np.float32)
    assert np.array_equal(as_float32(values), wide)
    expected = wide.tobytes() if kind == Kind.F32 else by_ggml(wide, kind)
    assert encode(values, kind).tobytes() == expected


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf, -np.inf])
def test_nothing_that_is_no_number(kind: Kind, dtype: Any, wrong: float) -> None:
    values = np.ones(64, np.float32)
    values[40] = wrong
    with pytest.raises(ValueError, match=r"it holds -?(nan|inf)"):
        encode(values.astype(dtype), kind)


@pytest.mark.parametrize(
    ("kind", "value"), [(Kind.F16, 65520.0), (Kind.F16, -1e30), (Kind.BF16, 3.4e38), (Kind.Q8_0, -8.4e6)]
)
def test_nothing_too_large(kind: Kind, value: float) -> None:
    values = np.ones(64, np.float32)
    values[40] = value
    with pytest.raises(ValueError, match="too large for"):
        encode(values, kind)


def test_the_largest_that_fits() -> None:
    values = np.full(32, 65519.0, np.float32)
    assert np.all(encode(values, Kind.F16) == 65504)
    assert np.isfinite(encode(np.full(32, 65504 * 127.0, np.float32), Kind.Q8_0)["scale"]).all()
