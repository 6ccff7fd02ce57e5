"""What is written once and shown elsewhere.

The docstrings of what ``import tinker_local`` offers become ``tinker_local/API.md``. The descriptions in
``tinker_local/options.py`` become the docstring of ``ServiceClient`` and the table in the README. Those of
the fields of OpenAI's requests become the tables in theirs.

python -m tests.api_page        writes them all
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import tinker_local
from tinker_local.options import Options
from tinker_local.serve.openai_api.fields import ChatFields, CompletionFields, Fields, SamplingFields
from tinker_local.service_only import REFUSES

PACKAGE = Path(__file__).resolve().parents[1] / "tinker_local"
PAGE = PACKAGE / "API.md"
README = PACKAGE / "README.md"
OPENAI = PACKAGE / "serve" / "openai_api" / "README.md"
SERVICE_CLIENT = PACKAGE / "service_client.py"

SECTIONS = {
    "Clients": ["ServiceClient", "SamplingClient", "RestClient", "APIFuture", "track", "RetryConfig"],
    "What goes in": [
        "ModelInput",
        "EncodedTextChunk",
        "ImageChunk",
        "ImageAssetPointerChunk",
        "SamplingParams",
        "TensorData",
    ],
    "What comes out": [
        "SampleResponse",
        "SampledSequence",
        "SampledToken",
        "PromptAltTokens",
        "TopkLogprobs",
        "Checkpoint",
    ],
    "The tokenizer": ["Tokenizer"],
    "While requests wait": ["QueueState", "QueueStateObserver", "Telemetry"],
    "Errors": [
        "TinkerError",
        "BadRequestError",
        "NotFoundError",
        "RequestFailedError",
        "ServiceOnlyError",
    ],
}
"""What the page has, in this order; the other names are Tinker's own, and are there for its scripts."""

_WITH_NAMES = ("Args", "Raises", "Attributes")
"""Sections of a docstring in which each entry begins with a name."""

HEAD = (
    "# tinker_local\n\nMade from the docstrings by `python -m tests.api_page`; a test keeps it so.\n"
    "What the numbers mean is in [README.md](README.md#what-the-numbers-mean).\n"
)


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for title, names in SECTIONS.items():
        parts.append(f"\n## {title}\n")
        for name in names:
            parts += _entry(name, getattr(tinker_local, name), "###")
            parts += _methods(name, getattr(tinker_local, name))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _methods(owner: str, item: Any) -> Iterator[str]:
    if not inspect.isclass(item) or owner.endswith("Error"):
        return
    bases = [c for c in reversed(item.__mro__) if c.__module__.startswith("tinker_local.encoding.")]
    members = {
        name: getattr(member, "__func__", member)
        for c in (*bases, item)
        for name, member in vars(c).items()
        if name[0] != "_" or (name == "__call__" and inspect.getdoc(member))
    }
    yield from _properties(members)
    functions = {
        name: m for name, m in members.items() if inspect.isfunction(m) and not name.endswith("_async")
    }
    for name, function in functions.items():
        if inspect.getdoc(function) and not hasattr(function, REFUSES):
            yield from _entry(f"{owner}.{name}", function, "####")
    if refusing := [f"`{name}`" for name, function in functions.items() if hasattr(function, REFUSES)]:
        yield "\n" + textwrap.fill(f"Only Tinker's service has {', '.join(refusing)}.", 108) + "\n"


def _properties(members: dict[str, Any]) -> Iterator[str]:
    """List attributes that are computed: name, type and docstring."""
    getters = {name: getattr(m, "fget", None) or getattr(m, "func", None) for name, m in members.items()}
    lines = []
    for name, getter in getters.items():
        if inspect.isfunction(getter):
            kind = _signature(getter).removeprefix("() -> ")
            lines.append(f"- `{name}: {kind}`: {' '.join(_code(inspect.getdoc(getter) or '').split())}")
    if lines:
        yield "\n".join(["\n**Properties**\n", *lines, ""])


def _entry(name: str, item: Any, level: str) -> Iterator[str]:
    yield f"\n{level} {name}\n"
    if inspect.isfunction(item):
        yield f"```python\n{name.rpartition('.')[2]}{_signature(item)}\n```\n"
    doc = inspect.getdoc(item) or ""
    yield _as_markdown(doc)


def _signature(function: Any) -> str:
    """Return it as the source has it, a line where there is room, else a parameter a line."""
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    whole = re.sub(r"\b(?:tinker_local\.)?types\.", "", str(signature.replace(parameters=parameters)))
    whole = re.sub(r"(: |-> )(['\"])(.*?)\2(?= = |, |\)|$)", r"\1\3", whole)  # annotations are strings
    return whole if len(whole) < 90 else _broken(whole)


def _broken(signature: str) -> str:
    inside, _, returns = signature[1:].rpartition(")")
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(inside):
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            parts.append(inside[start:place].strip())
            start = place + 1
    parts.append(inside[start:].strip())
    return "(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"


def _as_markdown(doc: str) -> str:
    """Return a docstring with its sections (Args, Returns, ...) as lists, and its code in one backtick."""
    lines: list[str] = []
    section = ""
    for line in _code(doc).splitlines():
        if re.fullmatch(r"(Args|Returns|Raises|Yields|Attributes)( \(.*\))?:", line):
            section = line[:-1]
            lines += [f"**{line[:-1]}**", ""]
        elif section in _WITH_NAMES and (match := re.match(r" {4}([\w*][\w, ]*): (.*)", line)):
            lines.append(f"- `{match[1]}`: {match[2]}")
        elif section and line.startswith("    "):
            lines.append(f"  {line.strip()}" if lines[-1].startswith(("-", "  ")) else line.strip())
        else:
            section = "" if line.strip() else section
            lines.append(line)
    return "\n".join(lines) + "\n"


def _code(doc: str) -> str:
    return doc.replace("``", "`")


def with_table(readme: str) -> str:
    """Return the README with its table of options made anew, between two markers."""
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for name, (meaning, default) in _options().items():
        shown = default if " " in default else f"`{default}`"
        rows.append(f"| `{name}` | {_marked(shown, '`')} | {_marked(meaning, '`')} |")
    table = "\n".join(rows)
    return re.sub(r"(?s)(<!-- options[^\n]*-->\n).*?(<!-- /options -->)", rf"\1{table}\n\2", readme)


def with_options(source: str) -> str:
    """Return ``service_client.py`` with the options in the docstring of ``ServiceClient`` made anew."""
    entries = []
    for name, (meaning, default) in _options().items():
        said = meaning if meaning[:2].isupper() else meaning[0].lower() + meaning[1:]
        text = f"{name}: {_marked(f'{said} Default: {default}.', '``')}"
        entries.append(textwrap.fill(text, 100, initial_indent=" " * 8, subsequent_indent=" " * 12))
    first, block = next(iter(_options())), "\n".join(entries)
    return re.sub(rf"(?s)(?<=\n) {{8}}{first}: .*?(?=\n\n)", block, source, count=1)


def with_fields(readme: str) -> str:
    """Return the README of OpenAI's endpoints with its tables of fields made anew."""
    both = list(SamplingFields.model_fields)
    tables = {
        "completions": [name for name in CompletionFields.model_fields if name not in both],
        "chat": [name for name in ChatFields.model_fields if name not in both],
        "both": both,
    }
    kinds: dict[str, type[Fields]] = {
        "completions": CompletionFields,
        "chat": ChatFields,
        "both": SamplingFields,
    }
    for title, names in tables.items():
        rows = [
            "| field | default | meaning |",
            "|---|---|---|",
            *(_row(kinds[title], name) for name in names),
        ]
        table = "\n".join(rows).replace("\\", r"\\")
        readme = re.sub(rf"(?s)(<!-- {title} -->\n).*?(<!-- /{title} -->)", rf"\1{table}\n\2", readme)
    return readme


def _row(kind: type[Fields], name: str) -> str:
    field = kind.model_fields[name]
    default = "required" if field.is_required() else _default(field.default)
    return f"| `{name}` | {default} | {field.description} |"


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "`{}`"
    return "" if value is None else f"`{json.dumps(value)}`"


def _options() -> dict[str, tuple[str, str]]:
    """Return what each option means, and its default, in the words of its description."""
    said = {name: field.description or "" for name, field in Options.model_fields.items()}
    parts = {name: text.rstrip(".").partition(" Unset: ") for name, text in said.items()}
    return {name: (meaning, default) for name, (meaning, _, default) in parts.items()}


def _marked(text: str, mark: str) -> str:
    """Put names of code between marks."""
    return re.sub(r"(?<!\")\b\w+_\w+\b|\b[A-Z]\w+Error\b", rf"{mark}\g<0>{mark}", text)


if __name__ == "__main__":
    for path, make in ((README, with_table), (SERVICE_CLIENT, with_options), (OPENAI, with_fields)):
        path.write_text(make(path.read_text(encoding="utf-8")), encoding="utf-8")
    tinker_local.ServiceClient.__doc__ = with_options(tinker_local.ServiceClient.__doc__ or "")
    PAGE.write_text(page(), encoding="utf-8")
