"""The text up to the end of the last message, for the model to continue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinker_local.chat.conversation import REASONING, Message
from tinker_local.chat.marks import new_mark, unlike
from tinker_local.chat.template import clock, render
from tinker_local.errors import BadRequestError


def render_open(
    template: str, messages: Sequence[Message], field: str = "content", **variables: Any
) -> str:
    """Return the text up to the end of the last message's text, for the model to continue.

    White space at its end is stripped where the template strips it. Two renderings with different marks
    must agree, so that nothing of a mark can be left where a template cuts or changes a message.

    Args:
        template: Jinja text.
        messages: the conversation.
        field: what is to be continued: a str of the last message, or a list of parts with a "text".
        **variables: for the template.

    Raises:
        BadRequestError: as in ``render``; or the last message has no text there, or the template leaves it
            out or changes it.
    """
    variables = {"strftime_now": clock(), **variables}
    mark = new_mark()
    first, second = (_open_text(template, messages, field, m, variables) for m in (mark, unlike(mark)))
    if first != second:
        raise BadRequestError(
            f"continue_final_message cannot be used: the template changes the last message's {field}"
        )
    return first


def _open_text(
    template: str, messages: Sequence[Message], field: str, mark: str, variables: dict[str, Any]
) -> str:
    marked = [*messages[:-1], _with_mark(messages[-1], field, f"{mark} ")]
    *shown, rest = render(template, marked, **variables).split(mark)
    if not shown:
        raise BadRequestError(
            f"continue_final_message cannot be used: the template leaves out the last message's {field}"
        )
    text = shown[0] + "".join(part.removeprefix(" ") for part in shown[1:])
    return text if rest.startswith(" ") else text.rstrip()


def _with_mark(message: Message, field: str, mark: str) -> Message:
    value = message.get(field)
    # Reasoning has several names in a message; whichever the template reads is marked.
    names = [name for name in REASONING if message.get(name) == value] if field in REASONING else [field]
    marked = _marked(value, mark)
    if marked is None:
        raise BadRequestError(
            f"continue_final_message needs a last message with text in {field!r}; it has "
            f"{', '.join(map(repr, message)) or 'nothing'}"
        )
    return {**message, **dict.fromkeys(names, marked)}


def _marked(value: Any, mark: str) -> Any:
    """Return a text, or a list whose last part of text has the mark at its end; None if there is none."""
    if isinstance(value, str):
        return value + mark
    if not isinstance(value, list | tuple):
        return None
    for place in reversed(range(len(value))):
        part = value[place]
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            return [*value[:place], {**part, "text": part["text"] + mark}, *value[place + 1 :]]
    return None
