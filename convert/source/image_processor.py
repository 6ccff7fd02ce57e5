"""The settings of a checkpoint's image processor: how an image becomes the numbers that its tower takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convert.files.directory import find_file
from convert.files.json_file import read_json


def read_image_processor(directory: Path) -> dict[str, Any]:
    """Return the settings, empty if the checkpoint has none.

    They are in preprocessor_config.json, or under ``image_processor`` in the processor_config.json of
    transformers 5, which comes first there too.
    """
    whole = find_file(directory, "processor_config.json")
    nested = read_json(whole).get("image_processor") if whole else None
    if isinstance(nested, dict):
        return nested
    path = find_file(directory, "preprocessor_config.json")
    return read_json(path) if path else {}
