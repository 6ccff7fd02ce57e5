"""The head of a GGUF file, written: metadata and where each tensor lies. ``file.py`` reads it.

Format: llama.cpp, ggml/include/gguf.h, version 3, little-endian. Written here because ``gguf.GGUFWriter``
takes 0.8 s for a vocabulary of 150,000 tokens and wants each tensor in one array.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGUFValueType as ValueType

from convert.errors import CheckpointError
from convert.gguf.tensor_info import ALIGNMENT, TensorInfo, pad

Value = str | bool | int | float | Sequence[int] | Sequence[float] | Sequence[bool] | Sequence[str]
"""A value of GGUF metadata. Integers are written as uint32, floats as float32."""


@dataclass(frozen=True)
class Whole:
    """A whole number for a key that llama.cpp reads in another width than uint32."""

    value: int
    kind: ValueType


def pack_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Return the entries of a table of metadata, without their number.

    Raises:
        CheckpointError: a value has no place in a GGUF file.
    """
    return b"".join(_entry(key, value) for key, value in metadata.items())


def pack_head(metadata: Mapping[str, Any], tensors: Iterable[TensorInfo]) -> bytes:
    """Return the head of a file: all bytes before the first tensor's data.

    Whole numbers are written as uint32 (int32 if negative), fractions as float32, arrays of whole
    numbers as int32.
    """
    return assemble_head(pack_metadata(metadata), len(metadata), tensors)


def assemble_head(
    metadata: bytes, n_keys: int, tensors: Iterable[TensorInfo], alignment: int = ALIGNMENT
) -> bytes:
    """As ``pack_head``, for metadata that is packed already; ``alignment``: its ``general.alignment``."""
    tensors = tuple(tensors)
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), n_keys), metadata]
    offset = 0
    for tensor in tensors:
        parts.append(pack_tensor(tensor, offset))
        offset += pad(tensor.n_bytes, alignment)
    head = b"".join(parts)
    return head.ljust(pad(len(head), alignment), b"\0")


def pack_tensor(tensor: TensorInfo, offset: int) -> bytes:
    """Return a tensor's entry; ``offset``: bytes from where the data of all tensors begins."""
    extents = tensor.shape[::-1]
    numbers = struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, tensor.type, offset)
    return _text(tensor.name) + numbers


def _entry(key: str, value: Any) -> bytes:
    try:
        return _text(key) + _value(value)
    except (struct.error, ValueError, OverflowError) as error:
        raise CheckpointError(f"{key} cannot be written to the file: {error}") from None


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Any) -> bytes:
    if isinstance(value, Whole):
        return struct.pack("<IH" if value.kind == ValueType.UINT16 else "<Ii", value.kind, value.value)
    if isinstance(value, str):
        return struct.pack("<I", ValueType.STRING) + _text(value)
    if isinstance(value, bool):
        return struct.pack("<I?", ValueType.BOOL, value)
    if isinstance(value, int | np.integer):
        number = int(value)
        if number < 0:
            return struct.pack("<Ii", ValueType.INT32, number)
        return struct.pack("<II", ValueType.UINT32, number)
    if isinstance(value, float | np.floating):
        return struct.pack("<If", ValueType.FLOAT32, value)
    return struct.pack("<I", ValueType.ARRAY) + _array(value)


def _array(values: Sequence[Any]) -> bytes:
    if not len(values):
        raise ValueError("it is an empty array, which llama.cpp does not take")
    kinds = {bool if isinstance(value, bool | np.bool_) else type(value) for value in values}
    if kinds == {str}:
        return struct.pack("<IQ", ValueType.STRING, len(values)) + b"".join(map(_text, values))
    if kinds == {bool}:
        return _numbers(values, ValueType.BOOL, "?")
    if all(issubclass(kind, int | np.integer) for kind in kinds):
        return _numbers(values, ValueType.INT32, "<i4")
    if all(issubclass(kind, int | float | np.number) for kind in kinds):
        return _numbers(values, ValueType.FLOAT32, "<f4")
    raise ValueError(f"it is an array of {', '.join(sorted(kind.__name__ for kind in kinds))}")


def _numbers(values: Sequence[Any], kind: ValueType, dtype: str) -> bytes:
    return struct.pack("<IQ", kind, len(values)) + np.asarray(values, dtype).tobytes()
