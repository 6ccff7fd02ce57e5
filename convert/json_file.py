"""JSON files of a checkpoint, which may be anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from convert.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file.

    Raises:
        CheckpointError: the file cannot be read, is no JSON in UTF-8, or holds something else.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {str(error) or 'nested too deeply'}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__} where a table is needed")
    return values


def read_json_if_any(path: Path) -> dict[str, Any]:
    """Return the object in a file, an empty one if there is no such file."""
    return read_json(path) if path.exists() else {}
