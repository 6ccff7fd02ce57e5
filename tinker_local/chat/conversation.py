"""Conversations as a template sees them: plain JSON values, made of what callers have.

Messages may be dicts, dataclasses or pydantic models (those of OpenAI's client). The rules are those of
transformers 5. A field that is None is left out, since templates would write "None". Reasoning is found
under each of its names. What is no JSON value becomes a text that names its type, so that no template gets
hold of an object with methods.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinker_local.chat.tool_schema import tool_schema
from tinker_local.errors import BadRequestError, shown

Message = dict[str, Any]
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names of a message's reasoning; the first is the one that most templates read."""


def is_batch(conversation: Any) -> bool:
    """Whether this is a list of conversations, and not one of messages."""
    return isinstance(conversation, list | tuple) and bool(conversation) and _is_list(conversation[0])


def messages_of(conversation: Any) -> list[Message]:
    """Return the messages of one conversation as a template gets them.

    Raises:
        BadRequestError: there are none, or one is no message.
    """
    given = getattr(conversation, "messages", conversation)
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise BadRequestError(
            f"conversation is a {type(given).__name__} ({shown(given)}); it must be a list of messages"
        )
    if not given:
        raise BadRequestError("the conversation is empty; give at least one message")
    return [_message(index, message) for index, message in enumerate(plain(given))]


def tools_of(tools: Any) -> list[Any] | None:
    """Return JSON schemas of tools: dicts as they are, Python functions by signature and docstring.

    Raises:
        BadRequestError: one is neither, or a function lacks a type or a description.
    """
    if tools is None:
        return None
    if not isinstance(tools, list | tuple):
        raise BadRequestError(f"tools is a {type(tools).__name__} ({shown(tools)}); it must be a list")
    return [_tool(tool) for tool in tools]


def documents_of(documents: Any) -> list[Any] | None:
    """Return documents as plain values.

    Raises:
        BadRequestError: one is no dict.
    """
    if documents is None:
        return None
    if not isinstance(documents, list | tuple):
        raise BadRequestError(
            f"documents is a {type(documents).__name__} ({shown(documents)}); it must be a list"
        )
    for document in documents:
        if not isinstance(document, Mapping):
            raise BadRequestError(
                f"a document is a {type(document).__name__} ({shown(document)}); documents are dicts with "
                "'title' and 'text'"
            )
    return [plain(document) for document in documents]


def plain(value: Any) -> Any:
    """Return a value made of dict, list, tuple, str, int, float, bool and None alone.

    Raises:
        BadRequestError: it contains itself, or is nested hundreds of levels deep.
    """
    try:
        return _plain(value)
    except RecursionError:
        raise BadRequestError("the conversation or a variable is nested too deeply") from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return _plain(value.item())
    if value is None or isinstance(value, str | int | float):
        return _scalar(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)):
        return _plain(dump())
    return f"<{type(value).__name__}>"


def _scalar(value: str | int | float | None) -> str | int | float | None:
    """Return the value without a subclass: an enumeration has methods of its own."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    return int.__int__(value) if isinstance(value, int) else float.__float__(value)


def _is_list(conversation: Any) -> bool:
    return isinstance(conversation, list | tuple) or hasattr(conversation, "messages")


def _message(index: int, message: Any) -> Message:
    if not isinstance(message, dict):
        raise BadRequestError(
            f"message {index} is a {type(message).__name__} ({shown(message)}); messages are dicts with "
            "'role' and 'content'"
        )
    said = {name: value for name, value in message.items() if value is not None}
    reasoning = next((said[name] for name in REASONING if name in said), None)
    return said if reasoning is None else {"thinking": reasoning, **said, REASONING[0]: reasoning}


def _tool(tool: Any) -> Any:
    if isinstance(tool, Mapping):
        return plain(tool)
    if inspect.isfunction(tool) or inspect.ismethod(tool):
        return tool_schema(tool)
    raise BadRequestError(
        f"a tool is a {type(tool).__name__} ({shown(tool)}); tools are JSON schemas (dicts) or Python "
        "functions with types and a docstring"
    )
