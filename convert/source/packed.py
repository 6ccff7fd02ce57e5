"""Number formats that keep a matrix in two tensors or more, and the numbers that they stand for.

=================  =========================  ==========================  ==================
format             values                     scales                      in GGUF
=================  =========================  ==========================  ==================
FP8                E4M3, one byte each        one a block, row or tensor  the file's type
MXFP4 (gpt-oss)    E2M1, two in a byte        E8M0, one per 32 in a row   MXFP4, same numbers
NVFP4              E2M1, two in a byte        E4M3, one per 16 in a row,  the file's type
                                              times one for the tensor
integers           2, 3, 4 or 8 bits, in      one a group of a row; the   the file's type
                   int32 words or bytes       integer that stands for 0
INT4 (Kimi)        -8..7, eight in an int32   bfloat16, one per 32 in a   Q4_0, same numbers
                                              row
NF4, FP4           a code of 16 numbers, two  float32, one per 64, often  the file's type
                   in a byte                  packed themselves
=================  =========================  ==========================  ==================

A product of value and scale is rounded once, to float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from convert.source.tensor import Array

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]

GROUP = 32
"""Numbers that share a scale, in MXFP4 and in Kimi's INT4 as in ggml's blocks of both."""

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""The 4-bit numbers of MXFP4, by their bits."""

_CHUNK = 1 << 22  # numbers that are unpacked at once

MXFP4_BYTES, Q4_0_BYTES = 17, 18
"""Bytes of a block of 32 in ggml (``block_mxfp4``, ``block_q4_0`` of ggml-common.h)."""


def dequantize_fp8(values: Array, scales: Array, block: tuple[int, int]) -> Float32:
    """Return the numbers that 8-bit floats and a scale for each block stand for: value * scale.

    Args:
        values: float8_e4m3fn, shape ``(rows, columns)``.
        scales: shape ``(rows / block[0], columns / block[1])``, rounded up.
        block: rows and columns that share a scale; those at the edges may be smaller.
    """
    rows, columns = values.shape
    wide = np.repeat(as_scales(scales), block[1], axis=1)[:, :columns]
    numbers = values.astype(np.float32)
    for start in range(0, rows, block[0]):
        numbers[start : start + block[0]] *= wide[start // block[0]]
    return numbers


def as_scales(scales: Array) -> Float32:
    """Return scales as numbers; a byte is an exponent plus 127 (E8M0)."""
    if scales.dtype == np.uint8:
        return np.ldexp(np.float32(1), scales.astype(np.int32) - 127)
    return np.asarray(scales.astype(np.float32))


def unpack_bits(words: Array, bits: int) -> Bytes:
    """Return the unsigned integers of 2, 3, 4 or 8 bits in 32-bit words: the lowest bits first, no gaps.

    Args:
        words: int32, shape ``(rows, words)``.

    Returns:
        shape ``(rows, words * 32 / bits)``, rounded down.
    """
    data = np.ascontiguousarray(words, "<i4").view(np.uint8)
    if bits == 8:
        return data
    if bits == 4:
        return split_nibbles(data)
    each = np.unpackbits(data, axis=-1, bitorder="little")
    count = each.shape[-1] // bits
    each = each[..., : count * bits].reshape(*each.shape[:-1], count, bits)
    return np.packbits(each, axis=-1, bitorder="little")[..., 0]


def dequantize_groups(
    values: Array, zeros: Array | int, scales: Array, groups: NDArray[np.intp]
) -> Float32:
    """Return the numbers that integers stand for: (value - zero) * scale, both of the column's group.

    Args:
        values: integers, shape ``(rows, columns)``.
        zeros: shape ``(rows, groups)``, or one for all.
        scales: shape ``(rows, groups)``.
        groups: the group of each column.
    """
    numbers = np.empty(values.shape, np.float32)
    step = max(1, _CHUNK // max(1, values.shape[1]))
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        shift = zeros if isinstance(zeros, int) else zeros[rows].astype(np.float32)[:, groups]
        numbers[rows] = (values[rows].astype(np.float32) - shift) * as_scales(scales[rows])[:, groups]
    return numbers


def dequantize_nvfp4(packed: Bytes, scales: Array, factor: float) -> Float32:
    """Return the numbers that NVFP4 stands for: E2M1 * (scale of its group of 16 * factor).

    Args:
        packed: two E2M1 numbers in a byte, the first one below; shape ``(rows, columns / 2)``.
        scales: float8_e4m3fn, shape ``(rows, columns / 16)``.
        factor: of the whole tensor.
    """
    numbers = E2M1[split_nibbles(packed)]
    return numbers * np.repeat(scales.astype(np.float32) * np.float32(factor), 16, axis=1)


def dequantize_codes(packed: Bytes, codes: Float32, largest: Float32, block: int, count: int) -> Float32:
    """Return the numbers that bitsandbytes' 4-bit codes stand for: code * largest of its block.

    Args:
        packed: two codes in a byte, the first one above.
        codes: the 16 numbers.
        largest: of each block, float32.
        block: numbers in a block.
        count: numbers in all; the last block may be smaller.
    """
    each = np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)[:count]
    return codes[each] * np.repeat(largest, block)[:count]


def dequantize_bytes(values: Bytes, codes: Float32, largest: Float32, block: int, offset: float) -> Float32:
    """Return the scales that bitsandbytes packs in bytes: code * largest of its block + offset."""
    return codes[values] * np.repeat(largest, block)[: len(values)] + np.float32(offset)


def split_nibbles(data: Bytes) -> Bytes:
    """Return the two halves of every byte, the low one first; the last axis doubles."""
    return np.stack([data & 15, data >> 4], axis=-1).reshape(*data.shape[:-1], -1)


def join_nibbles(groups: Bytes) -> Bytes:
    """Return 16 bytes for each 32 nibbles as ggml lays them: byte i holds number i and, above it, i + 16.

    Args:
        groups: values below 16, shape ``(..., 32)``.
    """
    packed: Bytes = groups[..., : GROUP // 2] | groups[..., GROUP // 2 :] << np.uint8(4)
    return packed


def repack_mxfp4(blocks: Bytes, scales: Bytes) -> Bytes:
    """Return MXFP4 as gpt-oss stores it in ggml's layout; no number changes.

    Args:
        blocks: two E2M1 numbers in a byte, the first one below; shape ``(..., groups, 16)``.
        scales: exponents plus 127; shape ``(..., groups)``.

    Returns:
        shape ``(..., groups * 17)``: for each group its scale, then its numbers.
    """
    numbers = join_nibbles(split_nibbles(blocks))
    packed = np.concatenate([scales[..., None], numbers], axis=-1)
    return packed.reshape(*scales.shape[:-1], -1)


def dequantize_mxfp4(blocks: Bytes, scales: Bytes) -> Float32:
    """Return the numbers that MXFP4 as gpt-oss stores it stands for.

    Args:
        blocks: two E2M1 numbers in a byte, the first one below; shape ``(..., groups, 16)``.
        scales: exponents plus 127; shape ``(..., groups)``.

    Returns:
        shape ``(..., groups * 32)``.
    """
    numbers = np.ldexp(E2M1[split_nibbles(blocks)], scales.astype(np.int32)[..., None] - 127)
    return numbers.astype(np.float32).reshape(*scales.shape[:-1], -1)


def unpack_int4(packed: Array) -> Bytes:
    """Return the unsigned 4-bit numbers in 32-bit words, the lowest bits first; 8 stands for 0.

    Args:
        packed: int32, shape ``(rows, words)``.

    Returns:
        values below 16, shape ``(rows, words * 8)``.
    """
    return split_nibbles(np.ascontiguousarray(packed, "<i4").view(np.uint8))


def dequantize_int4(packed: Array, scales: Array) -> Float32:
    """Return the numbers that symmetric INT4 stands for: (value - 8) * scale of its group of 32.

    Args:
        packed: int32, shape ``(rows, columns / 8)``.
        scales: shape ``(rows, columns / 32)``.
    """
    signed = unpack_int4(packed).astype(np.float32) - 8
    return signed * np.repeat(scales.astype(np.float32), GROUP, axis=1)


def fits_q4_0(scales: Array) -> bool:
    """Whether every scale is the same number in float16, in which Q4_0 keeps it."""
    exact = scales.astype(np.float32)
    return bool(np.array_equal(exact, exact.astype(np.float16).astype(np.float32)))


def repack_q4_0(packed: Array, scales: Array) -> Bytes:
    """Return symmetric INT4 as Q4_0; no number changes where ``fits_q4_0``.

    Args:
        packed: int32, shape ``(rows, columns / 8)``.
        scales: shape ``(rows, columns / 32)``.

    Returns:
        shape ``(rows, columns / 32 * 18)``: for each group its scale in float16, then its numbers.
    """
    rows = len(packed)
    numbers = join_nibbles(unpack_int4(packed).reshape(rows, -1, GROUP))
    halves = np.ascontiguousarray(scales.astype(np.float32).astype("<f2"))
    blocks = np.concatenate([halves.view(np.uint8).reshape(rows, -1, 2), numbers], axis=-1)
    return blocks.reshape(rows, -1)
