"""Chat templates of a checkpoint, from chat_template.jinja or a field of tokenizer_config.json."""

from __future__ import annotations

from pathlib import Path

from convert.errors import CheckpointError
from convert.files.json_file import read_json_if_any

DEFAULT = "default"


def read_chat_templates(directory: Path) -> dict[str, str]:
    """Return the templates by name, "default" being the one used when none is asked for.

    transformers' order: ``chat_template.jinja`` and ``additional_chat_templates/*.jinja``, else
    ``chat_template.json``, else the field in tokenizer_config.json, which may hold several.

    Raises:
        CheckpointError: a file is malformed.
    """
    templates = {}
    file = directory / "chat_template.jinja"
    if file.exists():
        templates[DEFAULT] = _read(file)
    for other in sorted((directory / "additional_chat_templates").glob("*.jinja")):
        templates[other.stem] = _read(other)
    for name in ("chat_template.json", "tokenizer_config.json"):
        if not templates:
            templates = _field(directory / name)
    return templates


def _field(path: Path) -> dict[str, str]:
    value = read_json_if_any(path).get("chat_template")
    if value is None:
        return {}
    entries = [{"name": DEFAULT, "template": value}] if isinstance(value, str) else value
    if isinstance(entries, dict):
        entries = [{"name": name, "template": template} for name, template in entries.items()]
    try:
        templates = {entry["name"]: entry["template"] for entry in entries}
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: chat_template is neither a text nor a list of named ones"
        ) from error
    if not all(isinstance(part, str) for pair in templates.items() for part in pair):
        raise CheckpointError(f"{path}: a template in chat_template, or its name, is no text")
    return templates


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
