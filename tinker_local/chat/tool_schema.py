"""Python functions as tools: JSON schemas from signature and docstring, as transformers 5 makes them.

The docstring is Google's style. ``Args:`` describes each parameter; a description may end in
``(choices: ["tea", "coffee"])``, which becomes the schema's ``enum``.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tinker_local.errors import BadRequestError

Schema = dict[str, Any]

_NAMES: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "null",
    list: "array",
    tuple: "array",
    dict: "object",
}
_SCALARS = (int, float, str, bool, type(None))
_SECTION = re.compile(r"^\s*(Args|Returns|Raises):[ \t]*$", re.MULTILINE)
_ENTRY = re.compile(r"([ \t]*)(\w+)(?:[ \t]*\([^()\n]*\))?:[ \t]*(.*)")
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def tool_schema(function: Callable[..., Any]) -> Schema:
    """Return the JSON schema of a function, as chat templates take it in ``tools``.

    Raises:
        BadRequestError: there is no docstring; or a parameter lacks a type or a description, or its type
            has no JSON schema.
    """
    name = getattr(function, "__name__", "operation")
    try:
        return {"type": "function", "function": _described(function, name)}
    except (_NoSchema, NameError, ValueError, TypeError) as error:
        raise BadRequestError(f"the function {name} cannot become a tool: {error}") from error


class _NoSchema(Exception):
    """Something in a function has no JSON schema; the text is a message fragment."""


def _described(function: Callable[..., Any], name: str) -> Schema:
    doc = _Docstring.of(inspect.getdoc(function) or "")
    hints = get_type_hints(function)
    described: Schema = {
        "name": name,
        "description": doc.description,
        "parameters": _parameters(function, hints, doc),
    }
    if "return" in hints and (returned := _returned(hints["return"])) is not None:
        described["return"] = returned if doc.returns is None else {**returned, "description": doc.returns}
    return described


def _parameters(function: Callable[..., Any], hints: dict[str, Any], doc: _Docstring) -> Schema:
    parameters = dict(inspect.signature(function).parameters)
    first = next(iter(parameters.values()), None)
    if first is not None and first.name in ("self", "cls") and first.annotation is first.empty:
        del parameters[first.name]
    for name, parameter in parameters.items():
        if parameter.annotation is parameter.empty:
            raise _NoSchema(f"its parameter {name} has no type")
        if name not in doc.parameters:
            raise _NoSchema(f"its docstring has no description of the parameter {name}; write one in Args:")
    properties = {name: _property(hints[name], doc.parameters[name]) for name in parameters}
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _property(hint: Any, description: str) -> Schema:
    schema = _schema(hint)
    if choices := _CHOICES.search(description):
        values = json.loads(choices[1])
        schema["enum"] = [value.strip() if isinstance(value, str) else value for value in values]
        description = description[: choices.start()].strip()
    return {**schema, "description": description}


def _returned(hint: Any) -> Schema | None:
    """Return the schema of what a function returns; None if it has none: no model writes it."""
    try:
        return _schema(hint)
    except _NoSchema:
        return None


def _schema(hint: Any) -> Schema:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None:
        return _bare(hint)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is Literal:
        return _one_of(arguments)
    if origin is list:
        return {"type": "array", **({"items": _schema(arguments[0])} if arguments else {})}
    if origin is tuple:
        return _tuple(hint, arguments)
    if origin is dict:
        return {"type": "object", **({"additionalProperties": _schema(arguments[1])} if arguments else {})}
    raise _NoSchema(f"the type {hint!r} has no JSON schema; pass the tool's schema, a dict, instead")


def _bare(hint: Any) -> Schema:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _one_of(tuple(member.value for member in hint))
    if hint in _NAMES:
        return {"type": _NAMES[hint]}
    if hint is Any:
        return {}
    raise _NoSchema(f"the type {hint!r} has no JSON schema; pass the tool's schema, a dict, instead")


def _union(members: tuple[Any, ...]) -> Schema:
    schemas = [_schema(member) for member in members if member is not type(None)]
    nullable = {"nullable": True} if type(None) in members else {}
    if len(schemas) == 1:
        return {**schemas[0], **nullable}
    if all(schema.keys() == {"type"} and isinstance(schema["type"], str) for schema in schemas):
        names = sorted({schema["type"] for schema in schemas})
        return {"type": names[0] if len(names) == 1 else names, **nullable}
    return {"anyOf": schemas, **nullable}


def _one_of(values: tuple[Any, ...]) -> Schema:
    if not values or any(type(value) not in _SCALARS for value in values):
        raise _NoSchema(f"the values {values!r} must be str, int, float, bool or None, and at least one")
    names = list(dict.fromkeys(_NAMES[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": list(values)}


def _tuple(hint: Any, members: tuple[Any, ...]) -> Schema:
    if not members:
        return {"type": "array"}
    if len(members) == 1 or ... in members:
        raise _NoSchema(f"the type {hint!r} has no length, or one item; take list[...] or the item's type")
    return {"type": "array", "prefixItems": [_schema(member) for member in members]}


@dataclass(frozen=True)
class _Docstring:
    """What a docstring in Google's style says.

    Attributes:
        description: the text before the first section.
        parameters: the descriptions under ``Args:``, by name, each in one line.
        returns: the text under ``Returns:``, if any.
    """

    description: str
    parameters: dict[str, str]
    returns: str | None

    @classmethod
    def of(cls, text: str) -> _Docstring:
        if not text.strip():
            raise _NoSchema("it has no docstring")
        description, *rest = _SECTION.split(text.strip())
        sections = dict(zip(rest[::2], rest[1::2], strict=True))
        returns = sections.get("Returns")
        return cls(
            description.strip(),
            _entries(sections.get("Args", "")),
            None if returns is None else returns.strip(),
        )


def _entries(text: str) -> dict[str, str]:
    """Return the descriptions of a section by name; lines that are indented deeper continue one."""
    found: dict[str, list[str]] = {}
    indentation, name = "", ""
    for line in filter(str.strip, text.split("\n")):
        entry = _ENTRY.fullmatch(line)
        if entry and not (name and entry[1].startswith(indentation) and entry[1] != indentation):
            indentation, name = entry[1], entry[2]
            found[name] = [entry[3].strip()]
        elif name:
            found[name].append(line.strip())
    return {name: " ".join(filter(None, lines)) for name, lines in found.items()}
