"""The files of a model that is split: ``NAME-00001-of-00003.gguf`` and so on (``llama_split_path``)."""

from __future__ import annotations

import glob
import re
from pathlib import Path

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")


def parts_of(path: Path) -> list[Path]:
    """Return the files of a model, given its only one or its first part."""
    part = _PART.fullmatch(path.stem)
    if not part:
        return [path]
    return sorted(path.parent.glob(f"{glob.escape(part['stem'])}-?????-of-{part['count']}.gguf"))


def existing(output: Path) -> list[Path]:
    """Return the files of a model that is there under this name: itself, or its parts."""
    parts = output.parent.glob("*.gguf") if output.parent.is_dir() else ()
    return [
        path
        for path in sorted(parts)
        if path == output or ((part := _PART.fullmatch(path.stem)) and part["stem"] == output.stem)
    ] or ([output] if output.is_file() else [])


def is_whole(files: list[Path]) -> bool:
    """Whether there is the first part, which comes last: else whoever wrote them was killed."""
    return any(not (part := _PART.fullmatch(path.stem)) or part["number"] == "00001" for path in files)
