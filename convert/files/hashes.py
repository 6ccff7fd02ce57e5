"""SHA-256 of stored files, kept in a file beside them in the format of ``sha256sum``."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from convert.errors import CheckpointError
from convert.files.workplace import workplace

_PART = re.compile(r"-\d{5}-of-\d{5}$")
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_CHUNK = 1 << 20  # bytes read at once


def hashes_path(model: Path) -> Path:
    """Return the file with a model's hashes: ``NAME.gguf.sha256``, one for all parts."""
    return model.with_name(f"{_PART.sub('', model.stem)}.gguf.sha256")


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return a file's SHA-256 in hexadecimal digits; ``on_bytes`` gets each number of bytes read."""
    digest, view = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(view):
            digest.update(view[:n])
            if on_bytes:
                on_bytes(n)
    return digest.hexdigest()


def write_hashes(path: Path, hashes: Mapping[str, str]) -> None:
    """Write hashes by file name and sync them to disk; the caller renames the file."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
        file.flush()
        os.fsync(file.fileno())


def record_hashes(files: Sequence[Path]) -> None:
    """Compute and record the hashes of a model's files."""
    target = hashes_path(files[0])
    with workplace(target.parent, target.name) as place:
        write_hashes(place / target.name, {path.name: hash_file(path) for path in files})
        os.replace(place / target.name, target)


def read_hashes(model: Path) -> dict[str, str] | None:
    """Return the hashes recorded for a model, by file name; None if there are none.

    Raises:
        CheckpointError: their file is not of the form that ``sha256sum`` writes.
    """
    path = hashes_path(model)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    found = [_LINE.fullmatch(line) for line in text.splitlines()]
    if not found or not all(found):
        raise CheckpointError(f"{path} does not hold lines of the form HASH  NAME; is it damaged?")
    return {match[2]: match[1] for match in found if match}


def wrong_files(
    files: Iterable[Path], recorded: Mapping[str, str], on_bytes: Callable[[int], None] | None = None
) -> list[str]:
    """Return what is wrong with a model's files, one line each: hashes that differ, missing files."""
    present = {path.name: path for path in files}
    problems = [f"{name} is missing" for name in recorded if name not in present]
    for name, path in present.items():
        if name not in recorded:
            problems.append(f"{name} has no recorded hash")
        elif (digest := hash_file(path, on_bytes)) != recorded[name]:
            problems.append(
                f"{name} has changed: its SHA-256 is {digest}, and {recorded[name]} is recorded"
            )
    return problems
