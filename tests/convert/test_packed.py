"""Packed number formats, bit by bit, against what their documents say in float64."""

from __future__ import annotations

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from convert.source.packed import (
    dequantize_fp8,
    dequantize_int4,
    fits_q4_0,
    repack_mxfp4,
    repack_q4_0,
    split_nibbles,
    unpack_int4,
)

RNG = np.random.default_rng(0)


def e4m3(byte: int) -> float:
    """A sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinities (OCP FP8 v1.0, 5.1)."""
    sign, exponent, mantissa = -1.0 if byte & 128 else 1.0, byte >> 3 & 15, byte & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    if exponent == 0:
        return sign * mantissa * 2.0**-9
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def e2m1(code: int) -> float:
    """A sign, 2 bits of exponent with bias 1, 1 of mantissa (OCP MX v1.0, 5.3.3)."""
    sign, exponent, mantissa = -1.0 if code & 8 else 1.0, code >> 1 & 3, code & 1
    return sign * (mantissa / 2 if exponent == 0 else (1 + mantissa / 2) * 2.0 ** (exponent - 1))


def test_every_8_bit_float() -> None:
    values = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).reshape(1, 256)
    numbers = dequantize_fp8(values, np.ones((1, 2), np.float32), (128, 128))
    assert np.array_equal(numbers[0], [e4m3(byte) for byte in range(256)], equal_nan=True)


@pytest.mark.parametrize("shape", [(128, 128), (1, 1), (129, 300), (300, 64), (256, 257)])
def test_each_block_has_its_scale(shape: tuple[int, int]) -> None:
    rows, columns = shape
    values = RNG.standard_normal(shape).astype(ml_dtypes.float8_e4m3fn)
    scales = RNG.random((-(-rows // 128), -(-columns // 128))).astype(np.float32)
    numbers = dequantize_fp8(values, scales, (128, 128))
    exact = values.astype(np.float64)
    for i, j in np.ndindex(shape):
        exact[i, j] *= scales[i // 128, j // 128]
    assert numbers.dtype == np.float32
    assert np.array_equal(numbers, exact.astype(np.float32))  # one product, rounded once


def test_scales_may_be_powers_of_two_in_a_byte() -> None:
    values = np.full((2, 2), 1.5, ml_dtypes.float8_e4m3fn)
    scales = np.array([[130]], np.uint8).view(ml_dtypes.float8_e8m0fnu)
    assert np.array_equal(dequantize_fp8(values, scales, (128, 128)), np.full((2, 2), 12))


def test_the_low_half_of_a_byte_comes_first() -> None:
    assert split_nibbles(np.array([0x21, 0x43], np.uint8)).tolist() == [1, 2, 3, 4]


def mxfp4(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """gpt-oss: the first of two numbers in the low half of a byte, times 2 ** (scale - 127)."""
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], 32)
    values = np.array([e2m1(code) for code in range(16)])[codes]
    return (values * 2.0 ** (scales[..., None].astype(np.float64) - 127)).reshape(*scales.shape[:-1], -1)


def test_repacked_mxfp4_is_the_same_numbers_to_ggml() -> None:
    blocks = RNG.integers(0, 256, (3, 17, 15, 16), np.uint8)
    blocks[0, 0, 0] = [code | code << 4 for code in range(16)]
    scales = np.arange(3 * 17 * 15, dtype=np.int64).reshape(3, 17, 15) % 252 + 1
    packed = repack_mxfp4(blocks, scales.astype(np.uint8))
    assert packed.shape == (3, 17, 15 * 17)
    exact = mxfp4(blocks, scales).astype(np.float32)
    assert np.array_equal(gguf.quants.dequantize(packed, Kind.MXFP4), exact)


def test_the_layout_of_an_mxfp4_block() -> None:
    """ggml: the scale, then 16 bytes, byte i with numbers i and i + 16."""
    numbers = np.arange(32) % 16
    blocks = (numbers[::2] | numbers[1::2] << 4).astype(np.uint8)[None]
    packed = repack_mxfp4(blocks, np.array([42], np.uint8))
    assert packed.tolist() == [42, *(i | i << 4 for i in range(16))]


def words(values: np.ndarray) -> np.ndarray:
    """compressed-tensors: 8 added, eight in an int32, the first in the lowest bits."""
    unsigned = (values + 8).astype(np.uint32).reshape(len(values), -1, 8)
    return np.bitwise_or.reduce(unsigned << np.arange(0, 32, 4, dtype=np.uint32), axis=-1).view(np.int32)


def test_int4_numbers() -> None:
    values = np.tile(np.arange(-8, 8), (3, 4))
    scales = np.array([[0.5, 3e-5], [1e-3, 1.0], [7.0, 0.25]]).astype(ml_dtypes.bfloat16)
    assert np.array_equal(unpack_int4(words(values)), values + 8)
    exact = values.reshape(3, 2, 32) * scales.astype(np.float64)[..., None]
    numbers = dequantize_int4(words(values), scales)
    assert np.array_equal(numbers, exact.reshape(3, 64).astype(np.float32))


def test_int4_in_q4_0_is_the_same_numbers() -> None:
    values = RNG.integers(-8, 8, (7, 96))
    scales = (RNG.random((7, 3)) * 0.02).astype(ml_dtypes.bfloat16)
    packed = repack_q4_0(words(values), scales)
    assert packed.shape == (7, 3 * 18)
    assert np.array_equal(gguf.quants.dequantize(packed, Kind.Q4_0), dequantize_int4(words(values), scales))


@pytest.mark.parametrize(
    ("scale", "fits"),
    [
        (2.0**-14 * 1.9921875, True),
        (2.0**-24, True),
        (2.0**-25, False),
        (2.0**-24 * 1.5, False),
        (65280, True),
    ],
)
def test_which_scales_float16_holds(scale: float, fits: bool) -> None:
    assert fits_q4_0(np.array([[0.01, scale]]).astype(ml_dtypes.bfloat16)) == fits


def test_a_scale_that_is_too_large_for_float16() -> None:
    with np.errstate(over="ignore"):
        assert not fits_q4_0(np.array([[1e5]]).astype(ml_dtypes.bfloat16))
