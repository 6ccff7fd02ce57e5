"""A lock on a directory, so that processes that change it take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

NAME = ".lock"
"""The locked file's name. The file stays in the directory; the lock ends with its process."""


@contextmanager
def locked(directory: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a directory's lock for a block; ``on_wait`` is called if another process has it."""
    lock = FileLock(directory / NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait:
            on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
