"""Hidden directories in which results are made. Those of killed processes are removed by the next run."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

SUFFIX = ".tinker-local.part"
"""The suffix of such a directory's name."""


@contextmanager
def workplace(parent: Path, name: str = "") -> Iterator[Path]:
    """Yield an empty hidden directory in ``parent``, which is removed after the block.

    Its process has a lock on it, which goes with the process, however that ends. What others left in
    ``parent`` that were killed is removed before.
    """
    sweep(parent)
    path, lock = _made(parent, f".{name[:100]}-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def sweep(parent: Path) -> None:
    """Remove the working directories in ``parent`` whose processes are gone."""
    for path in parent.glob(f".*{SUFFIX}") if parent.is_dir() else ():
        lock = _lock(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _made(parent: Path, prefix: str) -> tuple[Path, int | None]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, suffix=SUFFIX, dir=parent))
        lock = _lock(path)
        if path.is_dir():  # else another process swept it away before it was locked
            return path, lock
        if lock is not None:
            os.close(lock)


def _lock(path: Path) -> int | None:
    """Lock a directory; return the descriptor to close, or None if the lock is taken or not supported."""
    if sys.platform == "win32":
        return None
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor
    return None
