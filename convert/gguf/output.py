"""A model's GGUF file, or its parts, written: the heads first, then each tensor as it is computed."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as ValueType

from convert.errors import CheckpointError
from convert.gguf.encoding import encode
from convert.gguf.head import Value, Whole, pack_head, pack_metadata, pack_tensor
from convert.gguf.target import Target
from convert.gguf.tensor_info import TensorInfo, pad
from convert.source.fingerprint import Fingerprint
from convert.source.tensor import Array, SourceTensor

SOURCE_HASH = "general.source.sha256"
"""The key of the weights' hash (``Fingerprint``)."""

_BLOCK = 1 << 18  # numbers that are encoded and written at once
_UNKNOWN = "-" * Fingerprint.LENGTH  # stands for the number until all is read
_PART_KEYS = 256  # bytes, more than the beginning of a file and the keys of a part take


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A target and the number format that it is stored in."""

    target: Target
    type: Kind

    @property
    def info(self) -> TensorInfo:
        """Its entry in the head."""
        return TensorInfo(self.target.name, self.target.shape, int(self.type))


@dataclass(frozen=True, eq=False)
class GgufOutput:
    """One model, laid out before anything is written.

    Attributes:
        parts: the tensors of each file.
        heads: what comes before the tensors' data in each file.
    """

    parts: Sequence[Sequence[StoredTensor]]
    heads: Sequence[bytes]

    @classmethod
    def plan(
        cls, metadata: Mapping[str, Value], tensors: Sequence[StoredTensor], split_size: int | None = None
    ) -> GgufOutput:
        """Lay out files of at most ``split_size`` bytes each; a larger tensor has its own."""
        metadata = {**metadata, SOURCE_HASH: _UNKNOWN}
        parts = [tensors] if split_size is None else _split(metadata, tensors, split_size)
        heads = []
        for number, part in enumerate(parts):
            keys: dict[str, Any] = dict(metadata) if number == 0 else {}
            if len(parts) > 1:
                keys["split.no"] = Whole(number, ValueType.UINT16)
                keys["split.count"] = Whole(len(parts), ValueType.UINT16)
                keys["split.tensors.count"] = Whole(len(tensors), ValueType.INT32)
            heads.append(pack_head(keys, [stored.info for stored in part]))
        return cls(parts, heads)

    @property
    def sizes(self) -> list[int]:
        """The size of each file in bytes."""
        return [
            len(head) + sum(stored.info.n_padded for stored in part)
            for head, part in zip(self.heads, self.parts, strict=True)
        ]

    def file_names(self, stem: str) -> list[str]:
        """Return the files' names; parts are named as llama.cpp's ``llama_split_path`` expects."""
        n = len(self.parts)
        return [f"{stem}.gguf"] if n == 1 else [f"{stem}-{i:05d}-of-{n:05d}.gguf" for i in range(1, n + 1)]

    def write_heads(self, paths: Sequence[Path]) -> None:
        """Write the heads, and give the files their final sizes; the tensors' data is a hole until then."""
        for path, head, size in zip(paths, self.heads, self.sizes, strict=True):
            with path.open("wb") as file:
                file.write(head)
                file.truncate(size)

    def write_data(
        self, paths: Sequence[Path], sources: Mapping[str, SourceTensor], on_bytes: Callable[[int], None]
    ) -> None:
        """Fill in the tensors' data, and the hash of the source tensors.

        The hash is known when all is read. Until then dashes hold its place in the first head.

        Args:
            paths: files that have their heads.
            sources: the checkpoint's tensors.
            on_bytes: called with the number of bytes of each write.

        Raises:
            CheckpointError: a tensor has numbers that its type cannot hold, or another size than its
                target says.
        """
        with Fingerprint() as fingerprint:
            for path, head, part in zip(paths, self.heads, self.parts, strict=True):
                with path.open("r+b") as file:
                    file.seek(len(head))
                    for stored in part:
                        for name in stored.target.sources:  # hashed on a thread while they are encoded
                            fingerprint.add(sources[name])
                        _write_tensor(file, stored, on_bytes)
                        fingerprint.wait()
            digest = fingerprint.digest()
        with paths[0].open("r+b") as file:
            # the whole entry is searched for, since a vocabulary may have a token of as many dashes
            entry = pack_metadata({SOURCE_HASH: _UNKNOWN})
            file.seek(self.heads[0].index(entry) + len(entry) - len(_UNKNOWN))
            file.write(digest.encode())


def _split(
    metadata: Mapping[str, Any], tensors: Sequence[StoredTensor], limit: int
) -> list[list[StoredTensor]]:
    parts: list[list[StoredTensor]] = [[]]
    used = _PART_KEYS + len(pack_metadata(metadata))
    for tensor in tensors:
        size = len(pack_tensor(tensor.info, 0)) + tensor.info.n_padded
        if parts[-1] and used + size > limit:
            parts.append([])
            used = _PART_KEYS
        parts[-1].append(tensor)
        used += size
    return parts


def _write_tensor(file: BinaryIO, stored: StoredTensor, on_bytes: Callable[[int], None]) -> None:
    target, n_bytes, written = stored.target, stored.info.n_bytes, 0
    for piece in target.pieces():
        for block in _blocks(piece):
            encoded = block if target.raw_type is not None else _encode(block, stored)
            written += encoded.nbytes
            if written > n_bytes:
                break
            file.write(encoded.view(np.uint8).data)
            on_bytes(encoded.nbytes)
    if written != n_bytes:
        raise CheckpointError(
            f"tensor {target.name} of shape {target.shape} must have {n_bytes} bytes, and has "
            f"{'more' if written > n_bytes else written}"
        )
    file.write(bytes(pad(n_bytes) - n_bytes))


def _encode(block: Array, stored: StoredTensor) -> Array:
    try:
        return encode(block, stored.type)
    except ValueError as error:
        sources = " + ".join(stored.target.sources) or stored.target.name
        raise CheckpointError(f"tensor {sources} cannot be stored: {error}") from None


def _blocks(piece: Array) -> Iterator[Array]:
    """Yield an array's numbers in order, some rows at a time, contiguous."""
    if not piece.size:
        return
    rows = np.asarray(piece).reshape(-1, piece.shape[-1] if piece.ndim else 1)
    mapped = _memory_map(piece)
    step = max(1, _BLOCK // rows.shape[1])
    for start in range(0, len(rows), step):
        yield np.ascontiguousarray(rows[start : start + step]).reshape(-1)
        if mapped is not None:  # else what was read counts as ours until the whole tensor is done
            mapped.madvise(mmap.MADV_DONTNEED)


def _memory_map(array: Any) -> mmap.mmap | None:
    """Return the memory map that an array is a view of, if its pages can be given back."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") else None
