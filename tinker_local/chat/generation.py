"""Which parts of a conversation's text the assistant says, by the template's ``{% generation %}`` tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tinker_local.chat.marks import new_mark, unlike
from tinker_local.chat.template import clock, enclosing, render
from tinker_local.errors import BadRequestError

Span = tuple[int, int]
"""Where a part of a text begins and ends, in characters; the end is excluded."""


def render_with_spans(
    template: str, messages: Sequence[Mapping[str, Any]], **variables: Any
) -> tuple[str, list[Span]]:
    """Return the text of a conversation, and the spans that generation tags enclose, in order.

    A span is found by marks in the text, and so is right where a macro or a block writes it.

    Raises:
        BadRequestError: as in ``render``; or the template changes what its tags enclose.
    """
    variables = {"strftime_now": clock(), **variables}
    text = render(template, messages, **variables)
    start = new_mark()
    end = unlike(start)
    with enclosing(start, end):
        marked = render(template, messages, **variables)
    if marked.replace(end, "").replace(start, "") != text:
        raise BadRequestError(
            "return_assistant_tokens_mask cannot be used: the chat template changes what its generation "
            "tags enclose"
        )
    return text, list(_spans(marked, start, end))


def _spans(marked: str, start: str, end: str) -> Iterator[Span]:
    """Yield the spans in characters of the text without marks; tags within tags count once."""
    place, depth, begun = 0, 0, 0
    for number, piece in enumerate(marked.split(start)):
        if number and not depth:
            begun = place
        depth += bool(number)
        first, *others = piece.split(end)
        place += len(first)
        for other in others:
            depth -= 1
            if not depth and begun < place:
                yield begun, place
            place += len(other)
