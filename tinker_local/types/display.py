"""How answers show themselves in a REPL and in a notebook."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from html import escape
from typing import Protocol

_SHORT = reprlib.Repr()
_SHORT.maxlist, _SHORT.maxstring = 8, 80
_ROWS = 32  # sequences shown of a response


class Shown(Protocol):
    """What is shown of a sequence."""

    @property
    def stop_reason(self) -> str: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def logprobs(self) -> list[float] | None: ...
    @property
    def text(self) -> str | None: ...


def in_words(sequence: Shown) -> str:
    """Return its stop reason, length, log-probability, and text or ids, on one line."""
    parts = [f"stop_reason={sequence.stop_reason!r}", f"{len(sequence.tokens)} tokens"]
    if sequence.logprobs is not None:
        parts.append(f"logprob={sum(sequence.logprobs):.3f}")
    text = sequence.text
    parts.append(f"tokens={_SHORT.repr(sequence.tokens)}" if text is None else f"text={_SHORT.repr(text)}")
    return ", ".join(parts)


def in_html(sequences: Sequence[Shown]) -> str:
    """Return a table with a row for each sequence."""
    rows = "".join(
        f"<tr><td>{index}</td><td>{escape(s.stop_reason)}</td><td>{len(s.tokens)}</td>"
        f"<td>{_total(s)}</td><td style='text-align:left;white-space:pre-wrap'>{_content(s)}</td></tr>"
        for index, s in enumerate(sequences[:_ROWS])
    )
    head = "<tr><th></th><th>stop</th><th>tokens</th><th>logprob</th><th>text</th></tr>"
    more = f"<p>and {len(sequences) - _ROWS} more</p>" if len(sequences) > _ROWS else ""
    return f"<table>{head}{rows}</table>{more}"


def _total(sequence: Shown) -> str:
    return "" if sequence.logprobs is None else f"{sum(sequence.logprobs):.3f}"


def _content(sequence: Shown) -> str:
    text = sequence.text
    return escape(_SHORT.repr(sequence.tokens) if text is None else text)


__all__ = ["in_html", "in_words"]
