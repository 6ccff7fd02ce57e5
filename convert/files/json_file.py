"""Untrusted JSON files: a single table, no name twice, within limits; else an error that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from convert.errors import CheckpointError

MOST_BYTES = 100_000_000
"""The safetensors library's limit for a header; real files are far smaller."""

MOST_PARTS = 6_000_000
"""Entries, as far as commas and brackets tell; a tokenizer of 262,144 tokens has 2,500,000. What Python
makes of as many takes some hundred megabytes."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the table in a file.

    Raises:
        CheckpointError: it cannot be read, is too large, or is not one JSON table.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if len(text) > MOST_BYTES:
        raise CheckpointError(f"{path} is larger than {MOST_BYTES // 10**6} MB")
    return parse_json(text.removeprefix(b"\xef\xbb\xbf"), str(path))


def parse_json(text: bytes, where: str) -> dict[str, Any]:
    """Return the table in a text; ``where`` names it in messages.

    Raises:
        CheckpointError: the text is not one JSON table, or a table in it has a name twice.
    """

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"{where} has {twice!r} twice in one table")
        return made

    n_parts = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    if n_parts > MOST_PARTS:
        raise CheckpointError(f"{where} has {n_parts:,} parts, and at most {MOST_PARTS:,} are allowed")
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=table)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise CheckpointError(f"{where} is not JSON: {reason}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} holds a {type(value).__name__} where a table is needed")
    return value


def read_json_if_any(path: Path) -> dict[str, Any]:
    """Return the table in a file, or an empty table if there is no such file. Errors as ``read_json``."""
    return read_json(path) if path.exists() else {}
