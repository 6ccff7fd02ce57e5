"""A file that is seen whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

_LONGEST = 100  # characters of a name that its unfinished file takes over


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """Yield a hidden path beside ``path`` to make a file at; at the end it is synced and gets its name.

    After an error nothing is left of it, and an older file of that name stays.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name[:_LONGEST]}-{secrets.token_hex(4)}.part")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Yield a file to write UTF-8 to, which appears as ``whole_path`` says.

    Raises:
        OSError: the file cannot be written.
    """
    with whole_path(path) as partial, partial.open("x", encoding="utf-8", newline="\n") as file:
        yield file


def sync(path: Path) -> None:
    """Wait until a file is on the disk, or the names in a directory are. Links to files have no data."""
    if path.is_symlink() and not path.is_dir():
        return
    if path.is_dir() and os.name == "nt":  # directories cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
