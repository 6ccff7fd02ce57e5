"""ModelFiles: the files of a model, found on any node by their hash, or fetched there once.

A node looks for a file at its path on the driver's machine, which may be on a shared file system. Then it
looks in its models directory, and among the files that it fetched before. Only a file that none of these
places has is fetched: piece by piece, by one process of a node, hashed on the way, and named at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from convert.files.hashes import hash_file, read_hashes
from convert.files.lock import locked
from convert.files.models_directory import models_directory
from convert.files.parts import parts_of
from convert.files.whole_file import whole_path
from tinker_local.batch.fingerprint import fingerprint
from tinker_local.errors import BadRequestError, NotFoundError
from tinker_local.weights import Weights

PIECE = 64 << 20
"""Bytes of one piece: what a node holds in memory of a file that it fetches."""

Pieces = Callable[[str, int], bytes]
"""Gives up to ``PIECE`` bytes of the driver's file of this SHA-256, from an offset; empty at its end."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as the driver has it.

    Attributes:
        path: where the driver has it.
        size: in bytes.
        sha256: of the whole file, in hexadecimal digits.
    """

    path: Path
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> StoredFile:
        """Describe a file; its hash is computed unless it is recorded beside it."""
        recorded = (read_hashes(path) or {}).get(path.name)
        return cls(path, path.stat().st_size, recorded or hash_file(path))

    def fetch(self, target: Path, pieces: Pieces) -> None:
        """Write the file to ``target``, which appears when it is whole and its hash is right.

        Raises:
            BadRequestError: the pieces are of another file.
        """
        digest, size = hashlib.sha256(), 0
        with whole_path(target) as partial:
            with partial.open("wb") as file:
                while data := pieces(self.sha256, size):
                    digest.update(data)
                    size += file.write(data)
            if digest.hexdigest() != self.sha256:
                raise BadRequestError(
                    f"{self.path} has changed: its SHA-256 is {digest.hexdigest()}, and was {self.sha256}; "
                    "leave the file alone while a job runs"
                )


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model, and perhaps an adapter.

    Attributes:
        model: the model's files, the first part first.
        adapter: the adapter's file, if there is one.
        fingerprints: of model and adapter, on the driver.
        lora_scale: factor on the adapter's part.
    """

    model: tuple[StoredFile, ...]
    adapter: StoredFile | None
    fingerprints: tuple[str, ...]
    lora_scale: float

    @classmethod
    def of(cls, weights: Weights) -> ModelFiles:
        """Describe the files that a client would open."""
        paths = [path for path in (weights.path, weights.adapter_path) if path]
        adapter = StoredFile.of(weights.adapter_path) if weights.adapter_path else None
        return cls(
            tuple(map(StoredFile.of, parts_of(weights.path))),
            adapter,
            tuple(map(fingerprint, paths)),
            weights.lora_scale,
        )

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files."""
        return (*self.model, self.adapter) if self.adapter else self.model

    def at_hand(self, pieces: Pieces | None) -> Weights:
        """Return the files on this machine; those that are not here are fetched.

        Raises:
            NotFoundError: a file is not here, and there are no ``pieces``.
            BadRequestError: a fetched file is another one.
        """
        model = _at_hand(self.model, self.fingerprints[0], pieces)
        adapter = _at_hand((self.adapter,), self.fingerprints[1], pieces) if self.adapter else None
        return Weights(model, adapter, self.lora_scale)


def _at_hand(files: tuple[StoredFile, ...], wanted: str, pieces: Pieces | None) -> Path:
    """Return the first part of a model, or an adapter."""
    first = files[0]
    place = models_directory() / "fetched" / first.sha256[:16]
    for path in (first.path, models_directory() / first.path.name, place / first.path.name):
        if _is_whole(path, len(files), wanted):
            return path
    if pieces is None:
        raise NotFoundError(
            f"{first.path} is not on this machine, nor is a file of its hash; copy it there"
        )
    place.mkdir(parents=True, exist_ok=True)
    with locked(place):
        for file in _missing(files, place):
            file.fetch(place / file.path.name, pieces)
    return place / first.path.name


def _missing(files: tuple[StoredFile, ...], place: Path) -> Iterator[StoredFile]:
    """Yield the files that another process did not fetch meanwhile; the first part last."""
    for file in reversed(files):
        target = place / file.path.name
        if not (target.is_file() and target.stat().st_size == file.size):
            yield file


def _is_whole(path: Path, n_files: int, wanted: str) -> bool:
    parts = parts_of(path)
    return len(parts) == n_files and path.is_file() and fingerprint(path) == wanted
