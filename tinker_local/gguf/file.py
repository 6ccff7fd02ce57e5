"""GGUF files as requests name them: is there one, what does its head say, has it changed.

``convert.gguf.file`` reads the format; here its errors become those of a client.
"""

from __future__ import annotations

import os
from pathlib import Path

from convert.errors import ConversionError
from convert.gguf import file as reader
from convert.gguf.file import MAGIC, GgufFile, Version, version_of
from tinker_local.errors import BadRequestError, NotFoundError


def read_head(path: Path) -> GgufFile:
    """Return a file's head, read once for each version of the file: the last few are remembered.

    Raises:
        BadRequestError: it is no GGUF file, or something in its head is wrong; the message says what.
    """
    try:
        return reader.read_head(path)
    except ConversionError as error:
        raise BadRequestError(str(error)) from error


def canonical_path(path: Path) -> Path:
    """Return the one path for a file, with links followed.

    Links to files of other names are kept: Hugging Face's cache links to blobs without a suffix, and
    llama.cpp finds the parts of a model by the first one's name.
    """
    resolved = path.resolve()
    return resolved if resolved.suffix == path.suffix else Path(os.path.abspath(path))


def file_version(path: Path) -> tuple[Path, Version]:
    """Return the canonical path, and what changes when another file is there, or the file has changed."""
    path = canonical_path(path)
    return path, version_of(path.stat())


def is_adapter(path: Path) -> bool:
    """Whether a file says that it holds an adapter and not a whole model; a broken file says nothing."""
    try:
        return read_head(path).is_adapter
    except BadRequestError:
        return False


def check_gguf(path: Path) -> Path:
    """Return ``path`` if it looks like a GGUF file.

    Raises:
        NotFoundError: it is not there.
        BadRequestError: it is a directory, empty, unreadable, or starts with other bytes.
    """
    if not path.exists():
        raise NotFoundError(f"there is no file {path}")
    if path.is_dir():
        raise BadRequestError(f"{path} is a directory, not a GGUF file{_hint(path)}")
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read: {error.strerror}") from error
    if not magic:
        raise BadRequestError(f"{path} is empty")
    if magic != MAGIC:
        raise BadRequestError(f"{path} is not a GGUF file: it starts with {magic!r}, not {MAGIC!r}")
    return path


def _hint(directory: Path) -> str:
    if found := sorted(file.name for file in directory.glob("*.gguf")):
        return f"; it holds {', '.join(found)}"
    if any(directory.glob("*.safetensors")):
        return f"; this converts what it holds: tinker-local convert {directory}"
    return " and holds no .gguf file"
