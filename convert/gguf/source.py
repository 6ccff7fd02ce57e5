"""The head of a GGUF file that is there already: what it says, and where its tensors lie.

Format: llama.cpp, ggml/include/gguf.h, version 3, little-endian. Believed in nothing, as every file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as ValueType

from convert.errors import CheckpointError, UnsupportedError
from convert.files.parts import parts_of
from convert.gguf.head import ALIGNMENT, TensorInfo

_NUMBERS = {
    ValueType.UINT8: "<u1", ValueType.INT8: "<i1", ValueType.UINT16: "<u2", ValueType.INT16: "<i2",
    ValueType.UINT32: "<u4", ValueType.INT32: "<i4", ValueType.FLOAT32: "<f4", ValueType.BOOL: "?",
    ValueType.UINT64: "<u8", ValueType.INT64: "<i8", ValueType.FLOAT64: "<f8",
}  # fmt: skip
_MOST_TEXT, _MOST_ENTRIES, _MOST_AXES = 1 << 24, 1 << 24, 4


@dataclass(frozen=True, eq=False)
class GgufSource:
    """One file.

    Attributes:
        path: the file.
        keys: its metadata; of arrays of text only the length is kept.
        n_keys: how many entries the metadata has.
        metadata: all of it, as it stands in the file.
        tensors: what the head says of each tensor.
        offsets: where each tensor's data begins in the file, in bytes.
    """

    path: Path
    keys: Mapping[str, Any]
    n_keys: int
    metadata: bytes
    tensors: Mapping[str, TensorInfo]
    offsets: Mapping[str, int]

    @property
    def alignment(self) -> int:
        """Tensors start at multiples of this many bytes."""
        return int(self.keys.get("general.alignment", ALIGNMENT))

    @classmethod
    def read(cls, path: Path) -> GgufSource:
        """Read a file's head.

        Raises:
            CheckpointError: it cannot be read, or is no sound GGUF file of version 3.
        """
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                return _Head(file, path, size).read()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


@dataclass
class _Head:
    file: BinaryIO
    path: Path
    size: int

    def read(self) -> GgufSource:
        magic, version, n_tensors, n_keys = struct.unpack("<4sIQQ", self.take(24))
        if magic != b"GGUF" or version not in (2, 3):
            raise CheckpointError(
                f"{self.path} is no GGUF file of version 3: it starts with {magic!r}, {version}"
            )
        if max(n_tensors, n_keys) > min(_MOST_ENTRIES, self.size):
            raise CheckpointError(f"{self.path} would have {n_tensors} tensors and {n_keys} keys")
        start, keys = self.file.tell(), {}
        for _ in range(n_keys):
            key = self.text()
            keys[key] = self.value(self.kind())
        end = self.file.tell()
        placed = [self.tensor() for _ in range(n_tensors)]
        alignment = keys.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise CheckpointError(f"{self.path} has general.alignment {alignment!r}")
        data = -(-self.file.tell() // alignment) * alignment
        tensors, offsets = {}, {}
        for info, offset in placed:
            if data + offset + info.n_bytes > self.size:
                raise CheckpointError(f"{self.path} is cut off in tensor {info.name}")
            tensors[info.name], offsets[info.name] = info, data + offset
        self.file.seek(start)
        return GgufSource(self.path, keys, n_keys, self.take(end - start), tensors, offsets)

    def take(self, n: int) -> bytes:
        if n < 0 or n > self.size - self.file.tell():
            raise CheckpointError(f"{self.path} is cut off in its head")
        return self.file.read(n)

    def whole(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def text(self) -> str:
        n = self.whole()
        if n > _MOST_TEXT:
            raise CheckpointError(f"{self.path} has a text of {n} bytes in its head")
        return self.take(n).decode("utf-8", "replace")

    def kind(self) -> ValueType:
        number = int.from_bytes(self.take(4), "little")
        try:
            return ValueType(number)
        except ValueError:
            raise CheckpointError(f"{self.path} has a value of the type {number} in its head") from None

    def value(self, kind: ValueType) -> Any:
        if kind == ValueType.STRING:
            return self.text()
        if kind == ValueType.ARRAY:
            return self.array(self.kind(), self.whole())
        return self.numbers(kind, 1)[0].item()

    def array(self, kind: ValueType, n: int) -> Any:
        if n > _MOST_ENTRIES:
            raise CheckpointError(f"{self.path} has an array of {n} values in its head")
        if kind == ValueType.STRING:
            for _ in range(n):
                self.take(self.whole())
            return n
        if kind == ValueType.ARRAY:
            raise CheckpointError(f"{self.path} has an array of arrays in its head")
        return self.numbers(kind, n).tolist()

    def numbers(self, kind: ValueType, n: int) -> np.ndarray[Any, Any]:
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self.take(n * dtype.itemsize), dtype)

    def tensor(self) -> tuple[TensorInfo, int]:
        name, n_axes = self.text(), int.from_bytes(self.take(4), "little")
        if n_axes > _MOST_AXES:
            raise CheckpointError(f"{self.path}: tensor {name} has {n_axes} axes")
        shape = tuple(self.whole() for _ in range(n_axes))[::-1]
        number, offset = struct.unpack("<IQ", self.take(12))
        try:
            kind = Kind(number)
        except ValueError:
            raise UnsupportedError(
                f"{self.path}: tensor {name} has the type {number}, unknown here"
            ) from None
        if shape and shape[-1] % GGML_QUANT_SIZES[kind][0]:
            raise CheckpointError(f"{self.path}: tensor {name} has rows of {shape[-1]} in {kind.name}")
        return TensorInfo(name, shape, kind), offset


def read_model(path: Path) -> list[GgufSource]:
    """Return the heads of a model's file, or of all its parts in order, given the first."""
    return [GgufSource.read(part) for part in parts_of(path)]
