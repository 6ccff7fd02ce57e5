"""A GGUF file taken apart, so that it can be put together again with any part wrong."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

from convert.gguf.formats import FORMATS

STRING, ARRAY = 8, 9
LAYOUTS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip


@dataclass
class Key:
    """``value`` is a number, bytes or a list of those; ``element``: the type of a list's."""

    name: bytes
    kind: int
    value: int | float | bytes | list[int | float | bytes]
    element: int = 0
    count: int | None = None  # a lie

    def pack(self) -> bytes:
        head = _text(self.name) + struct.pack("<I", self.kind)
        if self.kind != ARRAY or not isinstance(self.value, list):
            return head + _packed(self.kind, self.value)
        count = len(self.value) if self.count is None else self.count
        return (
            head
            + struct.pack("<IQ", self.element, count)
            + b"".join(_packed(self.element, value) for value in self.value)
        )


@dataclass
class Tensor:
    name: bytes
    shape: list[int]
    kind: int
    data: bytes
    offset: int | None = None  # a lie
    n_axes: int | None = None  # a lie

    def fit(self) -> None:
        """Cut or lengthen the data to what shape and format need, where that is not too much."""
        format = FORMATS.get(self.kind)
        if format is None:
            return
        need = math.prod(self.shape) // format.block_length * format.block_bytes
        if 0 <= need < 1 << 22:
            self.data = (self.data * (need // max(1, len(self.data)) + 1))[:need].ljust(need, b"\0")


@dataclass
class Parts:
    keys: list[Key] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    version: int = 3
    n_keys: int | None = None  # lies
    n_tensors: int | None = None
    alignment: int = 32

    def key(self, name: str) -> Key | None:
        return next((key for key in self.keys if key.name == name.encode()), None)

    def pack(self) -> bytes:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        parts = [struct.pack("<4sIQQ", b"GGUF", self.version, n_tensors, n_keys)]
        parts += [key.pack() for key in self.keys]
        offset, data = 0, []
        for tensor in self.tensors:
            at = offset if tensor.offset is None else tensor.offset
            n_axes = len(tensor.shape) if tensor.n_axes is None else tensor.n_axes
            extents = struct.pack(f"<{len(tensor.shape)}Q", *(n % 2**64 for n in tensor.shape))
            parts.append(_text(tensor.name) + struct.pack("<I", n_axes % 2**32) + extents)
            parts.append(struct.pack("<IQ", tensor.kind % 2**32, at % 2**64))
            padded = tensor.data + bytes(-len(tensor.data) % self.alignment)
            data.append(padded)
            offset += len(padded)
        head = b"".join(parts)
        return head + bytes(-len(head) % self.alignment) + b"".join(data)


def take_apart(data: bytes) -> Parts:
    """Return the parts of a sound file."""
    version, n_tensors, n_keys = struct.unpack_from("<IQQ", data, 4)
    at = 24

    def number(layout: str) -> int | float:
        nonlocal at
        (value,) = struct.unpack_from(layout, data, at)
        at += struct.calcsize(layout)
        return value  # type: ignore[no-any-return]

    def text() -> bytes:
        nonlocal at
        length = int(number("<Q"))
        at += length
        return data[at - length : at]

    def value(kind: int) -> int | float | bytes:
        return text() if kind == STRING else number(LAYOUTS[kind])

    parts = Parts(version=version)
    for _ in range(n_keys):
        name, kind = text(), int(number("<I"))
        if kind == ARRAY:
            element, count = int(number("<I")), int(number("<Q"))
            parts.keys.append(Key(name, kind, [value(element) for _ in range(count)], element))
        else:
            parts.keys.append(Key(name, kind, value(kind)))
    places = []
    for _ in range(n_tensors):
        name = text()
        shape = [int(number("<Q")) for _ in range(int(number("<I")))]
        parts.tensors.append(Tensor(name, shape, int(number("<I")), b""))
        places.append(int(number("<Q")))
    start = -(-at // 32) * 32
    for tensor, place in zip(parts.tensors, places, strict=True):
        format = FORMATS[tensor.kind]
        size = math.prod(tensor.shape) // format.block_length * format.block_bytes
        tensor.data = data[start + place : start + place + size]
    return parts


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _packed(kind: int, value: object) -> bytes:
    """Return a value as a type, bent to what the type can hold."""
    if kind == STRING:
        return _text(value if isinstance(value, bytes) else str(value).encode())
    if kind not in LAYOUTS:
        return b"\0" * 12
    if isinstance(value, bytes):
        value = len(value)
    layout = LAYOUTS[kind]
    if layout in ("<f", "<d"):
        try:
            return struct.pack(layout, value)
        except OverflowError:
            return struct.pack(layout, math.inf)
    assert isinstance(value, int | float)
    size = struct.calcsize(layout)
    whole = int(value) if math.isfinite(value) else 0
    return (whole % 2 ** (8 * size)).to_bytes(size, "little")
