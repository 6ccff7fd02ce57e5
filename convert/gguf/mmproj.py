"""The vision tower that belongs to a model's file, found and carried along."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from convert.files.mmproj import PREFIX, mmproj_path
from convert.gguf.file_types import inexactness, split_type


def find_mmproj(model: Path) -> Path | None:
    """Return a model's mmproj file, None if it has none.

    The file is ``mmproj-NAME.gguf`` beside ``NAME.gguf``. Published repositories have one model and name
    the file in many ways (``mmproj-F16.gguf``), so in Hugging Face's cache the most exact one is taken.

    Args:
        model: the model's GGUF file, or the first part.
    """
    path = mmproj_path(model)
    if path.is_file():
        return path
    if model.parent.parent.name != "snapshots":
        return None
    found = [path for path in sorted(model.parent.glob(f"{PREFIX}*.gguf")) if path.is_file()]
    return min(found, key=_inexactness, default=None)


def carry_mmproj(source: Path, output: Path, place: Path) -> None:
    """Give a file that is made of a model's file the tower of that model, if there is one.

    The tower gets a second name, or is copied where the disk knows no such names.

    Args:
        source: the model's file.
        output: where the new file will be.
        place: the directory that it is made in.
    """
    tower = find_mmproj(source)
    if tower is None:
        return
    target = place / mmproj_path(output).name
    try:
        os.link(tower.resolve(), target)
    except OSError:
        shutil.copyfile(tower, target)


def _inexactness(path: Path) -> tuple[int, int]:
    type = split_type(path.stem)[1]
    return inexactness(type) if type else (0, 0)  # said nowhere: as good as any
