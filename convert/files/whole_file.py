"""A text file that is seen whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

_LONGEST = 100  # characters of a name that its unfinished file takes over


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Yield a file to write UTF-8 to; at the end it is synced and gets its name.

    After an error nothing is left of it, and an older file of that name stays.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name[:_LONGEST]}-{secrets.token_hex(4)}.part")
    try:
        with partial.open("x", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
