"""The files of a model that is split: ``NAME-00001-of-00003.gguf`` and so on (``llama_split_path``)."""

from __future__ import annotations

import glob
import re
from pathlib import Path

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")


def parts_of(path: Path) -> list[Path]:
    """Return all files of a model, in order, given its only file or its first part."""
    part = _PART.fullmatch(path.stem)
    if not part:
        return [path]
    return sorted(path.parent.glob(f"{glob.escape(part['stem'])}-?????-of-{part['count']}.gguf"))


def stem_of(path: Path) -> str:
    """Return the name of a model's file without its suffix, and without what numbers a part."""
    part = _PART.fullmatch(path.stem)
    return part["stem"] if part else path.stem


def existing(output: Path) -> list[Path]:
    """Return the files that exist of a model with this output path: one file, or parts."""
    parts = output.parent.glob("*.gguf") if output.parent.is_dir() else ()
    return [
        path
        for path in sorted(parts)
        if path == output or ((part := _PART.fullmatch(path.stem)) and part["stem"] == output.stem)
    ] or ([output] if output.is_file() else [])


def is_whole(files: list[Path]) -> bool:
    """Whether a model's files are complete: the first part is published last."""
    return any(not (part := _PART.fullmatch(path.stem)) or part["number"] == "00001" for path in files)
