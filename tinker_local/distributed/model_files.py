"""ModelFiles: the files of a model, found on any node by their hash, or fetched there once.

A node looks for a file at its path on the driver's machine, which may be on a shared file system. Then it
looks in its models directory, and among the files that it fetched before. Only a file that none of these
places has is fetched: piece by piece, by one process of a node, hashed on the way, and named at the end.
A model's vision tower (its mmproj file) is found, or fetched, with it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from convert.files.hashes import hash_file, read_hashes
from convert.files.lock import locked
from convert.files.mmproj import mmproj_path
from convert.files.models_directory import models_directory
from convert.files.parts import parts_of
from convert.files.whole_file import whole_path
from convert.gguf.mmproj import find_mmproj
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
        name: what a node calls it.
        size: in bytes.
        sha256: of the whole file, in hexadecimal digits.
    """

    path: Path
    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str = "") -> StoredFile:
        """Describe a file; its hash is computed unless it is recorded beside it."""
        recorded = (read_hashes(path) or {}).get(path.name)
        return cls(path, name or path.name, path.stat().st_size, recorded or hash_file(path))

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
class StoredModel:
    """A model as the driver has it, with its tower if it reads images; or an adapter.

    Attributes:
        parts: its files, the first part first.
        tower: its mmproj file.
        fingerprints: of its parts, and of the tower's content.
    """

    parts: tuple[StoredFile, ...]
    tower: StoredFile | None
    fingerprints: tuple[str, str]

    @classmethod
    def of(cls, path: Path) -> StoredModel:
        """Describe the files of a model, or of an adapter."""
        tower = find_mmproj(path)
        return cls(
            tuple(map(StoredFile.of, parts_of(path))),
            StoredFile.of(tower, mmproj_path(path).name) if tower else None,
            _fingerprints(path),
        )

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files."""
        return (*self.parts, self.tower) if self.tower else self.parts

    def at_hand(self, pieces: Pieces | None) -> Path:
        """Return the first part on this machine; files that are not here are fetched.

        Raises:
            NotFoundError: a file is not here, and there are no ``pieces``.
            BadRequestError: a fetched file is another one.
        """
        first = self.parts[0]
        place = models_directory() / "fetched" / first.sha256[:16]
        places = (first.path, models_directory() / first.name, place / first.name)
        there = list(filter(self._has_parts, places))
        for path in there:
            if not self.tower or _fingerprints(path) == self.fingerprints:
                return path
        if pieces is None:
            lost = self.tower if self.tower and there else first
            raise NotFoundError(
                f"{lost.path} is not on this machine, nor is a file of its hash; copy it there"
            )
        place.mkdir(parents=True, exist_ok=True)
        with locked(place):
            for path in there[:1]:
                _link(path, place)
            for file in self._missing(place):
                file.fetch(place / file.name, pieces)
        return place / first.name

    def _has_parts(self, path: Path) -> bool:
        is_whole = path.is_file() and len(parts_of(path)) == len(self.parts)
        return is_whole and fingerprint(path) == self.fingerprints[0]

    def _missing(self, place: Path) -> Iterator[StoredFile]:
        """Yield the files that another process did not fetch meanwhile; the first part last."""
        for file in reversed(self.files):
            target = place / file.name
            if not (target.is_file() and target.stat().st_size == file.size):
                yield file


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model, and perhaps an adapter.

    Attributes:
        model: the model.
        adapter: the adapter, if there is one.
        lora_scale: factor on the adapter's part.
    """

    model: StoredModel
    adapter: StoredModel | None
    lora_scale: float

    @classmethod
    def of(cls, weights: Weights) -> ModelFiles:
        """Describe the files that a client would open."""
        adapter = StoredModel.of(weights.adapter_path) if weights.adapter_path else None
        return cls(StoredModel.of(weights.path), adapter, weights.lora_scale)

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files."""
        return (*self.model.files, *(self.adapter.files if self.adapter else ()))

    def at_hand(self, pieces: Pieces | None) -> Weights:
        """Return the files on this machine; see ``StoredModel.at_hand``."""
        adapter = self.adapter.at_hand(pieces) if self.adapter else None
        return Weights(self.model.at_hand(pieces), adapter, self.lora_scale)


def _fingerprints(path: Path) -> tuple[str, str]:
    """Return the fingerprint of a model's parts, and the hash in that of its tower: it has many names."""
    tower = find_mmproj(path)
    return fingerprint(path), fingerprint(tower).rpartition(" ")[2] if tower else ""


def _link(path: Path, place: Path) -> None:
    """Give the parts of a model names in another directory, where the disk knows such names."""
    for part in parts_of(path):
        with suppress(OSError):
            os.link(part.resolve(), place / part.name)
