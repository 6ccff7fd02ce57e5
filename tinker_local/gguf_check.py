"""Whether a path is that of a GGUF file, said before llama.cpp is asked."""

from __future__ import annotations

from pathlib import Path

from tinker_local.errors import BadRequestError, NotFoundError

_MAGIC = b"GGUF"


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
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read: {error.strerror}") from error
    if not magic:
        raise BadRequestError(f"{path} is empty")
    if magic != _MAGIC:
        raise BadRequestError(f"{path} is not a GGUF file: it starts with {magic!r}, not {_MAGIC!r}")
    return path


def _hint(directory: Path) -> str:
    if found := sorted(file.name for file in directory.glob("*.gguf")):
        return f"; it holds {', '.join(found)}"
    if any(directory.glob("*.safetensors")):
        return f"; this converts what it holds: tinker-local convert {directory}"
    return " and holds no .gguf file"
