"""Adapters in a tar archive, as Tinker hands them out. Archives are not trusted.

Refused is what leads out of the archive (absolute names, ``..``, links), what is no file or directory
(devices, pipes, sparse files), and what is too much: of members, of bytes, of bytes in all that unpack
from few (bombs). Only the two files of an adapter are written, to a directory that is gone afterwards.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from convert.adapters.checkpoint import WEIGHTS
from convert.adapters.settings import CONFIG
from convert.errors import CheckpointError
from convert.files.publishing import check_space
from convert.files.sizes import format_bytes
from convert.files.workplace import workplace

MOST_MEMBERS = 10_000
MOST_BYTES = 1 << 38
"""256 GB, more than an adapter of the largest models."""
MOST_PER_BYTE = 100
"""Bytes that one compressed byte may expand to; for real weights it is two at most."""

_SPARE = 1 << 20
_MOST_AT_ONCE = 1 << 22  # of a member's headers, which tarfile reads in one go
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_WANTED = (CONFIG, WEIGHTS)


def is_archive(path: Path) -> bool:
    """Whether a file begins as a tar archive does, plain or compressed with gzip."""
    try:
        with _opened(path) as file:
            head = file.read(tarfile.BLOCKSIZE)
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (OSError, EOFError, zlib.error, tarfile.HeaderError, CheckpointError):
        return False
    return True


@contextmanager
def unpacked(path: Path, beside: Path) -> Iterator[Path]:
    """Give a directory with the adapter's two files while the block runs.

    Args:
        beside: a directory that is there and has room.

    Raises:
        CheckpointError: the archive is malformed or hostile, or holds no adapter, or several.
    """
    with workplace(beside, "adapter") as directory:
        try:
            with _opened(path) as file, tarfile.open(fileobj=file, mode="r:", errorlevel=2) as archive:
                _unpack(archive, path, directory)
        except (
            tarfile.TarError,
            EOFError,
            zlib.error,
            gzip.BadGzipFile,
            UnicodeError,
            ValueError,
        ) as error:
            raise CheckpointError(f"{path} is no sound archive: {error}") from None
        yield directory


def _unpack(archive: tarfile.TarFile, path: Path, directory: Path) -> None:
    places: dict[str, str] = {}
    total = 0
    for number, member in enumerate(archive):
        if number >= MOST_MEMBERS:
            raise CheckpointError(f"{path} has more than {MOST_MEMBERS} members")
        name = _checked(member, path)
        total += member.size
        if total > MOST_BYTES:
            raise CheckpointError(f"{path} unpacks to more than {format_bytes(MOST_BYTES)}")
        if not member.isreg() or name.name not in _WANTED:
            continue
        if name.name in places:
            raise CheckpointError(
                f"{path} has two {name.name}: in {places[name.name]} and in {name.parent}"
            )
        places[name.name] = str(name.parent)
        check_space(directory, member.size)
        source = archive.extractfile(member)
        assert source is not None
        with source, (directory / name.name).open("xb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
    if CONFIG not in places or WEIGHTS not in places or len(set(places.values())) > 1:
        raise CheckpointError(
            f"{path} holds no adapter: {CONFIG} and {WEIGHTS} must lie in one place of it"
        )


def _checked(member: tarfile.TarInfo, path: Path) -> PurePosixPath:
    name, shown = PurePosixPath(member.name), repr(member.name)[:100]
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in member.name[:3]:
        raise CheckpointError(f"{path} has the member {shown}, which leads out of it; nothing was unpacked")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise CheckpointError(
            f"{path} has the member {shown}, which is no plain file or directory but {_kind(member)}; "
            "nothing was unpacked"
        )
    if member.size < 0:
        raise CheckpointError(f"{path} has the member {shown} of {member.size} bytes")
    return name


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r:.60}"
    return "a sparse file" if member.issparse() else "a device or pipe"


class _Limited:
    """A decompressed stream that ends with an error where it exceeds what its archive may expand to."""

    def __init__(self, file: IO[bytes], path: Path, limit: int) -> None:
        self._file, self._path, self._limit = file, path, limit

    def read(self, n: int = -1) -> bytes:
        if not 0 <= n <= _MOST_AT_ONCE:
            raise CheckpointError(f"{self._path} has a header of {n} bytes, which no honest archive has")
        data = self._file.read(n)
        self._check(self._file.tell())
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0:
            self._check(offset)  # before what lies between is unpacked
        place = self._file.seek(offset, whence)
        self._check(place)
        return place

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, place: int) -> None:
        if place > self._limit:
            raise CheckpointError(
                f"{self._path} unpacks to more than {format_bytes(self._limit)}, too much for its size"
            )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        is_packed = file.read(len(_GZIP)) == _GZIP
    limit = min(MOST_BYTES, size * MOST_PER_BYTE) + _SPARE if is_packed else size
    with gzip.open(path, "rb") if is_packed else path.open("rb") as opened:
        yield cast(IO[bytes], _Limited(cast(IO[bytes], opened), path, limit))
