"""The model card: licence and base model from the front matter of a checkpoint's README.md."""

from __future__ import annotations

import re
from pathlib import Path

from convert.files.directory import find_file

_MOST_BYTES = 1 << 16
_FRONT_MATTER = re.compile(r"---\s*\n(.*?)\n---", re.DOTALL)
_VALUE = (
    r"(?:[ \t]*|[ \t]*\n[ \t]*- +)([^\s\[\]#]\S*)[ \t]*(?:#.*)?$"  # on the line, or the one entry of a list
)


def read_model_card(directory: Path) -> dict[str, str]:
    """Return ``license`` and ``base_model`` where the card's front matter has them in plain form.

    The front matter is YAML; read are lines ``key: value`` and lists of one entry, no more. A card
    that is missing or different says nothing.
    """
    path = find_file(directory, "README.md")
    if path is None:
        return {}
    with path.open("rb") as file:
        text = file.read(_MOST_BYTES).decode("utf-8", "replace").replace("\r\n", "\n")
    match = _FRONT_MATTER.match(text)
    found = {}
    for key in ("license", "license_name", "license_link", "base_model"):
        line = match and re.search(rf"^{key}:{_VALUE}", match[1], re.MULTILINE)
        if line and (value := line[1].strip("'\"")):
            found[key] = value[:500]
    return found
