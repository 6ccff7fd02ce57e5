"""Files of an untrusted model directory, found by plain names: links that lead out of it are refused."""

from __future__ import annotations

import os
from pathlib import Path

from convert.errors import CheckpointError


def find_file(directory: Path, name: str) -> Path | None:
    """Return a file of the directory, None if there is none of that name.

    Links may stay in the directory, or lead to the blobs of the Hugging Face cache it belongs to
    (``models--ORG--NAME/snapshots/HASH`` links to ``models--ORG--NAME/blobs``).

    Raises:
        CheckpointError: the name is a path, or what it names is a link that leads elsewhere or
            nowhere, or no regular file.
    """
    if name in ("", ".", "..") or any(mark in name for mark in "/\\:\0"):
        raise CheckpointError(f"{directory}: {name!r} is not the name of a file in it")
    path = directory / name
    try:
        if not os.path.lexists(path):
            return None
        target = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from None
    if not any(target.is_relative_to(root) for root in _roots(directory)):
        raise CheckpointError(
            f"{path} links to {target}, outside the directory, and is not followed; put the file there"
        )
    if not target.is_file():
        raise CheckpointError(f"{path} is not a regular file")
    return path


def _roots(directory: Path) -> list[Path]:
    home = directory.resolve()
    return [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
