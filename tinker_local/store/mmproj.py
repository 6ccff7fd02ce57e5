"""What a model on this machine reads: text, and what its vision tower (mmproj file) encodes."""

from __future__ import annotations

from pathlib import Path

from convert.gguf.mmproj import find_mmproj
from tinker_local.gguf.file import read_head

_ENCODERS = {"images": "clip.has_vision_encoder", "audio": "clip.has_audio_encoder"}


def modalities(model: Path) -> tuple[str, ...]:
    """Return what a model reads: ``text``, and ``images`` or ``audio`` if its mmproj file encodes them.

    Args:
        model: its GGUF file, or the first part.

    Raises:
        BadRequestError: the mmproj file is not a GGUF file.
    """
    tower = find_mmproj(model)
    keys = read_head(tower).metadata if tower else {}
    return ("text", *(name for name, key in _ENCODERS.items() if keys.get(key) is True))


__all__ = ["modalities"]
