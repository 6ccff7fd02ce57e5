"""The head of a GGUF file, believed in nothing: read without llama.cpp, and before llama.cpp reads it.

Format: llama.cpp, ``ggml/include/gguf.h``, versions 2 and 3, little-endian. The head says what the model
is, has its vocabulary, and where each tensor lies; the tensors themselves are not read.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinker_local.errors import BadRequestError, NotFoundError
from tinker_local.gguf.arrays import Array, Malformed, Number, array_of, numbers, string_starts
from tinker_local.gguf.formats import BLOCKS, Block

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # enum gguf_type
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_LONGEST_KEY = 1 << 16  # in the format's description
_LONGEST_NAME = 64  # GGML_MAX_NAME, with the zero at its end
_MOST_ENTRIES = 1 << 20  # keys, and tensors; real files have some thousands
_N_AXES = 4  # GGML_MAX_DIMS
_MOST_BYTES = 1 << 62
_MAGIC = b"GGUF"
_ALIGNMENT = 32  # GGUF_DEFAULT_ALIGNMENT, and what ggml wants of a tensor's address

Value = Number | str | Array
Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's ``type`` (enum ggml_type), its four extents, the one that varies fastest first, and
    the byte of the file that it starts at.
    """

    type: int
    shape: tuple[int, ...]
    start: int = 0

    @property
    def block(self) -> Block:
        """How its numbers are stored."""
        return BLOCKS[self.type]

    @property
    def n_bytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) // self.block.length * self.block.n_bytes


class GgufFile:
    """The head of a GGUF file; everything in it is within the file, and of a kind that llama.cpp knows.

    Attributes:
        path: the file.
        metadata: its keys and values: numbers, texts and arrays.
        types: of each value (enum gguf_type).
        tensors: its tensors, by name.
    """

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            BadRequestError: it is no GGUF file, or something in its head is not so; the message says what.
        """
        self.path = path
        self.metadata: dict[str, Value] = {}
        self.types: dict[str, int] = {}
        self.tensors: dict[str, TensorInfo] = {}
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._read(_Cursor(data))
        except (OSError, ValueError) as error:  # of ValueError: an empty file
            reason = getattr(error, "strerror", None) or error
            raise BadRequestError(f"{path} cannot be read: {reason}") from error
        except Malformed as error:
            raise BadRequestError(
                f"{path} is a broken GGUF file: {error}. If it was downloaded, download it again"
            ) from None

    def type_of(self, key: str) -> int | None:
        """Return the type of a key's value (enum gguf_type), None if it is not there."""
        return self.types.get(key)

    def text(self, key: str) -> str | None:
        """Return a value, None if it is not there or is no text."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """Return a value, None if it is not there or is no uint32."""
        value = self.metadata.get(key)
        return int(value) if self.types.get(key) == UINT32 and isinstance(value, int) else None

    @property
    def context_length(self) -> int | None:
        """Tokens that a model was trained for; None if it does not say."""
        return self.number(f"{self.text('general.architecture')}.context_length")

    def _read(self, cursor: _Cursor) -> None:
        n_tensors, n_keys = _read_counts(cursor)
        for key, kind, value in _read_metadata(cursor, n_keys):
            if key in self.metadata:
                raise Malformed(f"the key {_shown(key)} is there twice")
            self.types[key], self.metadata[key] = kind, value
        entries = [_read_tensor(cursor) for _ in range(n_tensors)]
        alignment = _alignment(self.metadata, self.types)
        start = -(-cursor.position // alignment) * alignment
        self.tensors = dict(_placed(entries, start, alignment, len(cursor)))


class _Cursor:
    """Reads one thing after the other."""

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

    def text(self, what: str, longest: int = _MOST_BYTES) -> str:
        length = self.number("<Q", what)
        if length > longest:
            raise Malformed(f"{what} has a length of {length:,} bytes, and at most {longest:,} are allowed")
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed(f"{what} is not UTF-8") from None


def _read_counts(cursor: _Cursor) -> tuple[int, int]:
    magic = cursor.take(4, "the first word")
    if magic != _MAGIC:
        raise Malformed(f"it starts with {magic!r}, not {_MAGIC!r}")
    version = cursor.number("<I", "the version")
    if version not in (2, 3):
        big_endian = "; it was written for machines of the other byte order" * (version & 0xFFFF == 0)
        raise Malformed(f"it has version {version}, and versions 2 and 3 can be read{big_endian}")
    counts: tuple[int, int] = struct.unpack("<QQ", cursor.take(16, "the counts"))
    for count, of in zip(counts, ("tensors", "keys"), strict=True):
        if count > _MOST_ENTRIES:
            raise Malformed(f"it claims {count:,} {of}, and at most {_MOST_ENTRIES:,} are allowed")
    return counts


def _read_metadata(cursor: _Cursor, n_keys: int) -> Iterator[tuple[str, int, Value]]:
    """Read the keys with the types and values, one after the other."""
    for _ in range(n_keys):
        key = cursor.text("a key", _LONGEST_KEY)
        if not key:
            raise Malformed("a key is empty")
        yield key, *_read_value(cursor, key)


def _read_value(cursor: _Cursor, key: str) -> tuple[int, Value]:
    what = f"the value of {_shown(key)}"
    kind = cursor.number("<I", what)
    if kind == STRING:
        return kind, cursor.text(what)
    if kind == ARRAY:
        return kind, _read_array(cursor, what)
    if kind not in _SCALARS:
        raise Malformed(f"{what} has the unknown type {kind}")
    value: Number = cursor.number(_SCALARS[kind], what)
    return kind, value


def _read_array(cursor: _Cursor, what: str) -> Array:
    kind, count = cursor.number("<I", what), cursor.number("<Q", what)
    if kind == STRING:
        starts, end = string_starts(cursor.data, cursor.position, count, what)
        strings = array_of(cursor.take(end - cursor.position, what), starts)
        return strings
    if kind not in _SCALARS:
        raise Malformed(f"{what} is an array of arrays" if kind == ARRAY else f"{what} has type {kind}")
    layout = _SCALARS[kind].replace("?", "b")  # any byte but zero is true
    size = struct.calcsize(layout)
    return numbers(kind, np.frombuffer(cursor.take(count * size, what), np.dtype(layout)))


def _read_tensor(cursor: _Cursor) -> tuple[str, TensorInfo, int]:
    """Return a tensor's name, its type and shape, and its place after where the data starts."""
    name = cursor.text("a tensor's name", _LONGEST_NAME - 1)
    where = f"the tensor {_shown(name)}"
    n_axes = cursor.number("<I", where)
    if not 1 <= n_axes <= _N_AXES:
        raise Malformed(f"{where} has {n_axes} dimensions, and 1 to {_N_AXES} are allowed")
    extents = struct.unpack(f"<{n_axes}Q", cursor.take(8 * n_axes, where))
    shape = (*extents, *[1] * (_N_AXES - n_axes))
    kind, offset = cursor.number("<I", where), cursor.number("<Q", where)
    if not name.isprintable() or not name:
        raise Malformed(f"{where} has no name that can be printed")
    if kind not in BLOCKS:
        raise Malformed(f"{where} has the number format {kind}, which this llama.cpp does not know")
    if 0 in shape or math.prod(shape) * BLOCKS[kind].n_bytes > _MOST_BYTES:
        raise Malformed(f"{where} has the impossible shape {extents}")
    if shape[0] % BLOCKS[kind].length:
        raise Malformed(
            f"{where} has rows of {shape[0]} numbers, and {BLOCKS[kind].name} keeps them in blocks of "
            f"{BLOCKS[kind].length}"
        )
    return name, TensorInfo(kind, shape), offset


def _alignment(metadata: Mapping[str, Value], types: Mapping[str, int]) -> int:
    value = metadata.get("general.alignment", _ALIGNMENT)
    if types.get("general.alignment", UINT32) != UINT32 or not isinstance(value, int):
        raise Malformed("general.alignment is not a uint32")
    if value % _ALIGNMENT or not value or value & (value - 1):
        raise Malformed(f"general.alignment is {value}; it must be a power of two from {_ALIGNMENT} on")
    return value


def _placed(
    entries: list[tuple[str, TensorInfo, int]], start: int, alignment: int, size: int
) -> Iterator[tuple[str, TensorInfo]]:
    """Check that the tensors follow each other as llama.cpp wants them to, and that the file has them."""
    expected, seen = 0, set()
    for name, tensor, offset in entries:
        if name in seen:
            raise Malformed(f"the tensor {name} is there twice")
        if offset != expected:
            raise Malformed(f"the tensor {name} is at {offset:,}, and {expected:,} is the next free place")
        end = start + offset + tensor.n_bytes
        if end > size:
            raise Malformed(
                f"it is cut off: the tensor {name} would end at byte {end:,}, the file has {size:,}; its "
                "data is not within the file bounds"
            )
        seen.add(name)
        expected += -(-tensor.n_bytes // alignment) * alignment
        yield name, TensorInfo(tensor.type, tensor.shape, start + offset)


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) < 100 else f"{name[:60]!r}..."


def canonical_path(path: Path) -> Path:
    """Return the one path for a file, with links followed.

    Links to files of other names are kept: Hugging Face's cache links to blobs without a suffix, and
    llama.cpp finds the parts of a model by the first one's name.
    """
    resolved = path.resolve()
    return resolved if resolved.suffix == path.suffix else Path(os.path.abspath(path))


def file_version(path: Path) -> tuple[Path, Version]:
    """Return the canonical path, and what changes when another file is there, or the file has changed."""
    path = canonical_path(path)
    status = path.stat()
    return path, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def is_adapter(path: Path) -> bool:
    """Whether a file says that it holds an adapter and not a whole model; a broken file says nothing."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            cursor = _Cursor(data)
            _, n_keys = _read_counts(cursor)
            metadata = _read_metadata(cursor, n_keys)
            return any(key == "general.type" and value == "adapter" for key, _, value in metadata)
    except (OSError, ValueError, Malformed):
        return False


def check_gguf(path: Path) -> Path:
    """Return ``path`` if it looks like a GGUF file.

    Raises:
        NotFoundError: it is not there.
        BadRequestError: it is a directory, empty, unreadable, or starts with other bytes.
    """
    if not path.exists():
        raise NotFoundError(f"there is no file {path}")
    if path.is_dir():
        raise BadRequestError(f"{path} is a directory, not a GGUF file{_hint(path)}")
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read: {error.strerror}") from error
    if not magic:
        raise BadRequestError(f"{path} is empty")
    if magic != _MAGIC:
        raise BadRequestError(f"{path} is not a GGUF file: it starts with {magic!r}, not {_MAGIC!r}")
    return path


def _hint(directory: Path) -> str:
    if found := sorted(file.name for file in directory.glob("*.gguf")):
        return f"; it holds {', '.join(found)}"
    if any(directory.glob("*.safetensors")):
        return f"; this converts what it holds: tinker-local convert {directory}"
    return " and holds no .gguf file"
