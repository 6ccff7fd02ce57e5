"""The mmproj file of a model: its vision tower, ``mmproj-NAME.gguf`` beside ``NAME.gguf``.

llama.cpp calls the tower and its projector so ("multimodal projector"), in a file of their own.
"""

from __future__ import annotations

from pathlib import Path

from convert.files.parts import stem_of

PREFIX = "mmproj"
"""What the names of such files begin with, in this project and in published repositories."""


def mmproj_path(model: Path) -> Path:
    """Return where the mmproj file of a model belongs, whether it is there or not.

    Args:
        model: its GGUF file, or the first part.
    """
    return model.with_name(f"{PREFIX}-{stem_of(model)}.gguf")


def is_mmproj(path: Path) -> bool:
    """Whether a file's name is that of a vision tower, not of a model."""
    return path.name.startswith(PREFIX)
