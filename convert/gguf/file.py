"""The head of a GGUF file, read: its metadata, and where each tensor lies. The tensors themselves are not.

Files come from strangers and are not trusted: every count, length, type and offset is checked against the
limits below and against the size of the file. This is the only reader of the format in this project.

Format: llama.cpp, ``ggml/include/gguf.h``, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from convert.errors import CheckpointError, UnsupportedError
from convert.files.parts import parts_of
from convert.gguf.arrays import Array, Malformed, Number, array_of, numbers, string_starts
from convert.gguf.formats import FORMATS
from convert.gguf.tensor_info import ALIGNMENT, TensorInfo, pad

MAGIC = b"GGUF"
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # enum gguf_type
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip

# The limits. Those without a source are far above any real file.
_MAX_KEY_BYTES = 1 << 16  # in the format's description
_MAX_NAME_BYTES = 64 - 1  # GGML_MAX_NAME, less the zero at its end
_MAX_AXES = 4  # GGML_MAX_DIMS
_MAX_KEYS = 1 << 20  # and tensors; real files have some thousands
_MAX_TEXT_BYTES = 1 << 26
_MAX_ARRAY_LENGTH = 1 << 24
_MAX_TENSOR_BYTES = 1 << 62

_LONG_TEXT_BYTES = 1 << 20
"""A text of more bytes, such as a whole tokenizer.json, is left in the file until it is asked for."""
_N_CACHED = 8
_SETTLED = 2.0
"""Seconds for which a changed file is not remembered: a further change might get the same time, since some
file systems count in steps of two seconds."""


@dataclass(frozen=True, slots=True)
class LongText:
    """A text that was left in the file: the byte at which it begins, and its length in bytes."""

    start: int
    n_bytes: int


StoredValue = Number | str | LongText | Array
"""A value of the metadata, as it was read."""

Version = tuple[int, int, int, int]
"""A file's device, inode, time of change and size: another file, or a changed one, has another version."""


class UnknownFormat(Malformed):
    """A tensor has a number format that is not known; a newer llama.cpp may have it."""


@dataclass(frozen=True, slots=True, eq=False)
class GgufFile:
    """The head of a GGUF file. All of it lies within the file and is of a kind that llama.cpp knows.

    Attributes:
        path: the file.
        metadata: its keys and values: numbers, texts and arrays.
        types: of each value (enum gguf_type).
        tensors: its tensors, by name, in the file's order.
        metadata_end: byte of the file at which the metadata ends; it begins at ``METADATA_START``.
    """

    path: Path
    metadata: Mapping[str, StoredValue]
    types: Mapping[str, int]
    tensors: Mapping[str, TensorInfo]
    metadata_end: int

    @property
    def is_adapter(self) -> bool:
        """Whether the file says that it holds an adapter and not a whole model."""
        return self.text("general.type") == "adapter"

    @property
    def alignment(self) -> int:
        """Tensors start at multiples of this many bytes."""
        return self.number("general.alignment") or ALIGNMENT

    @property
    def context_length(self) -> int | None:
        """Tokens that a model was trained for; None if it does not say."""
        return self.number(f"{self.text('general.architecture')}.context_length")

    def type_of(self, key: str) -> int | None:
        """Return the type of a key's value (enum gguf_type), None if it is not there."""
        return self.types.get(key)

    def text(self, key: str) -> str | None:
        """Return a value, None if it is not there or is no text, or one of more than 1 MB."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def long_text(self, key: str) -> str | None:
        """Return a text of any length, which is read from the file; None if it is not there.

        Raises:
            CheckpointError: the file cannot be read, or the text is not UTF-8.
        """
        value = self.metadata.get(key)
        if not isinstance(value, LongText):
            return self.text(key)
        try:
            with self.path.open("rb") as file:
                file.seek(value.start)
                return file.read(value.n_bytes).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{self.path}: {key} cannot be read: {error}") from error

    def number(self, key: str) -> int | None:
        """Return a value, None if it is not there or is no uint32."""
        value = self.metadata.get(key)
        return int(value) if self.types.get(key) == UINT32 and isinstance(value, int) else None


METADATA_START = 24
"""Byte at which the metadata begins: after the magic, the version and two counts."""


def read_head(path: Path) -> GgufFile:
    """Return the head of a file, read once for each version of it: the last few are remembered.

    Raises:
        CheckpointError: the file cannot be read, or something in its head is wrong; the message says what.
        UnsupportedError: a tensor has a number format that is not known.
    """
    try:
        version = version_of(path.stat())
        is_settled = abs(time.time() - version[2] / 1e9) > _SETTLED
        head = _remembered(path.resolve(), version) if is_settled else parse_head(path)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} cannot be read: {reason}") from error
    except UnknownFormat as error:
        raise UnsupportedError(f"{path} cannot be read: {error}") from None
    except Malformed as error:
        raise CheckpointError(
            f"{path} is a broken GGUF file: {error}. If it was downloaded, download it again"
        ) from None
    return head if head.path == path else replace(head, path=path)


def read_heads(path: Path) -> list[GgufFile]:
    """Return the heads of a model's file, or of all its parts, given the first; errors as ``read_head``."""
    return [read_head(part) for part in parts_of(path)]


def version_of(status: os.stat_result) -> Version:
    """Return the version of a file."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def parse_head(path: Path) -> GgufFile:
    """Read a head from the file, whatever is remembered.

    Raises:
        OSError, ValueError: the file cannot be opened and mapped.
        Malformed: something in the head is wrong; the message does not name the file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _parse(path, _Cursor(data))


@lru_cache(_N_CACHED)  # safe to use from threads, and after a fork
def _remembered(path: Path, version: Version) -> GgufFile:
    return parse_head(path)


def _parse(path: Path, cursor: _Cursor) -> GgufFile:
    n_tensors, n_keys = _read_counts(cursor)
    metadata, types = dict[str, StoredValue](), dict[str, int]()
    for _ in range(n_keys):
        key = cursor.text("a key", _MAX_KEY_BYTES)
        if not key or key in metadata:
            raise Malformed(f"the key {_shown(key)} is there twice" if key else "a key is empty")
        types[key], metadata[key] = _read_value(cursor, key)
    metadata_end = cursor.position
    tensors = [_read_tensor(cursor) for _ in range(n_tensors)]
    alignment = _alignment(metadata, types)
    start = pad(cursor.position, alignment)
    placed = dict(_placed(tensors, start, alignment, len(cursor)))
    return GgufFile(path, metadata, types, placed, metadata_end)


class _Cursor:
    """A position in the file's bytes; every step is checked against their end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 0

    def __len__(self) -> int:
        return len(self.data)

    def take(self, n: int, what: str) -> bytes:
        end = self.position + n
        if end > len(self.data):
            raise Malformed(
                f"it is cut off: {what} would end at byte {end:,}, the file has {len(self.data):,}"
            )
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def number(self, layout: str, what: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))[0]

    def skip(self, n: int, what: str) -> None:
        """Go on without looking at the bytes."""
        if n > len(self.data) - self.position:
            self.take(n, what)
        self.position += n

    def length(self, what: str, longest: int) -> int:
        """Return the length of a text, in bytes."""
        length: int = self.number("<Q", what)
        if length > longest:
            raise Malformed(f"{what} has a length of {length:,} bytes, and at most {longest:,} are allowed")
        return length

    def text(self, what: str, longest: int) -> str:
        return self.characters(what, self.length(what, longest))

    def characters(self, what: str, length: int) -> str:
        """Return the next ``length`` bytes as text."""
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed(f"{what} is not UTF-8") from None


def _read_counts(cursor: _Cursor) -> tuple[int, int]:
    """Return how many tensors and keys there are."""
    magic = cursor.take(4, "the first word")
    if magic != MAGIC:
        raise Malformed(f"it starts with {magic!r}, not {MAGIC!r}")
    version = cursor.number("<I", "the version")
    if version not in (2, 3):
        big_endian = "; it was written for machines of the other byte order" * (version & 0xFFFF == 0)
        raise Malformed(f"it has version {version}, and versions 2 and 3 can be read{big_endian}")
    counts: tuple[int, int] = struct.unpack("<QQ", cursor.take(16, "the counts"))
    for count, of in zip(counts, ("tensors", "keys"), strict=True):
        if count > _MAX_KEYS:
            raise Malformed(f"it claims {count:,} {of}, and at most {_MAX_KEYS:,} are allowed")
    return counts


def _read_value(cursor: _Cursor, key: str) -> tuple[int, StoredValue]:
    """Return a value's type and the value."""
    what = f"the value of {_shown(key)}"
    kind = cursor.number("<I", what)
    if kind == STRING:
        return kind, _read_text(cursor, what)
    if kind == ARRAY:
        return kind, _read_array(cursor, what)
    if kind not in _SCALARS:
        raise Malformed(f"{what} has the unknown type {kind}")
    value: Number = cursor.number(_SCALARS[kind], what)
    return kind, value


def _read_text(cursor: _Cursor, what: str) -> str | LongText:
    length = cursor.length(what, _MAX_TEXT_BYTES)
    if length <= _LONG_TEXT_BYTES:
        return cursor.characters(what, length)
    start = cursor.position
    cursor.skip(length, what)
    return LongText(start, length)


def _read_array(cursor: _Cursor, what: str) -> Array:
    kind, count = cursor.number("<I", what), cursor.number("<Q", what)
    if kind != STRING and kind not in _SCALARS:
        raise Malformed(f"{what} is an array of arrays" if kind == ARRAY else f"{what} has type {kind}")
    if count > _MAX_ARRAY_LENGTH:
        raise Malformed(
            f"{what} would have {count:,} entries, and at most {_MAX_ARRAY_LENGTH:,} are allowed"
        )
    if kind == STRING:
        starts, end = string_starts(cursor.data, cursor.position, count, what)
        return array_of(cursor.take(end - cursor.position, what), starts)
    layout = _SCALARS[kind].replace("?", "b")  # any byte but zero is true
    size = struct.calcsize(layout)
    return numbers(kind, np.frombuffer(cursor.take(count * size, what), np.dtype(layout)))


def _read_tensor(cursor: _Cursor) -> TensorInfo:
    """Return what the head says of a tensor; ``start`` counts from where the data begins."""
    name = cursor.text("a tensor's name", _MAX_NAME_BYTES)
    where = f"the tensor {_shown(name)}"
    n_axes = cursor.number("<I", where)
    if not 1 <= n_axes <= _MAX_AXES:
        raise Malformed(f"{where} has {n_axes} dimensions, and 1 to {_MAX_AXES} are allowed")
    extents = struct.unpack(f"<{n_axes}Q", cursor.take(8 * n_axes, where))  # the fastest first
    type, offset = cursor.number("<I", where), cursor.number("<Q", where)
    if not name.isprintable() or not name:
        raise Malformed(f"{where} has no name that can be printed")
    if type not in FORMATS:
        raise UnknownFormat(f"{where} has the number format {type}, which this llama.cpp does not know")
    format = FORMATS[type]
    if 0 in extents or math.prod(extents) * format.block_bytes > _MAX_TENSOR_BYTES:
        raise Malformed(f"{where} has the impossible shape {extents}")
    if extents[0] % format.block_length:
        raise Malformed(
            f"{where} has rows of {extents[0]} numbers, and {format.name} keeps them in blocks of "
            f"{format.block_length}"
        )
    return TensorInfo(name, extents[::-1], type, offset)


def _alignment(metadata: Mapping[str, StoredValue], types: Mapping[str, int]) -> int:
    value = metadata.get("general.alignment", ALIGNMENT)
    if types.get("general.alignment", UINT32) != UINT32 or not isinstance(value, int):
        raise Malformed("general.alignment is not a uint32")
    if value % ALIGNMENT or not value or value & (value - 1):
        raise Malformed(f"general.alignment is {value}; it must be a power of two from {ALIGNMENT} on")
    return value


def _placed(
    tensors: list[TensorInfo], start: int, alignment: int, size: int
) -> Iterator[tuple[str, TensorInfo]]:
    """Check that the tensors follow each other as llama.cpp wants them to, and that the file has them.

    Args:
        start: byte of the file at which the data begins.
        size: bytes of the file.
    """
    expected, seen = 0, set()
    for tensor in tensors:
        if tensor.name in seen:
            raise Malformed(f"the tensor {tensor.name} is there twice")
        if tensor.start != expected:
            raise Malformed(
                f"the tensor {tensor.name} is at {tensor.start:,}, and {expected:,} is the next free place"
            )
        end = start + tensor.start + tensor.n_bytes
        if end > size:
            raise Malformed(
                f"it is cut off: the tensor {tensor.name} would end at byte {end:,}, the file has "
                f"{size:,}; its data is not within the file bounds"
            )
        seen.add(tensor.name)
        expected += pad(tensor.n_bytes, alignment)
        yield tensor.name, replace(tensor, start=start + tensor.start)


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) < 100 else f"{name[:60]!r}..."


__all__ = [
    "ARRAY",
    "BOOL",
    "FLOAT32",
    "INT32",
    "MAGIC",
    "METADATA_START",
    "STRING",
    "UINT32",
    "GgufFile",
    "LongText",
    "StoredValue",
    "Version",
    "parse_head",
    "read_head",
    "read_heads",
    "version_of",
]
