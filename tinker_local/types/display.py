"""The ``repr`` of responses."""

from __future__ import annotations

import reprlib
from typing import Protocol

_SHORT = reprlib.Repr()
_SHORT.maxlist, _SHORT.maxstring = 8, 80


class Shown(Protocol):
    """The part of a sequence that its ``repr`` shows."""

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


__all__ = ["in_words"]
