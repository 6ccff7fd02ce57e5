"""Reasoning: the part of a chat's answer that comes before what is meant for the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MARKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))
"""Beginnings and ends of reasoning, by the chat templates that write them."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What encloses a model's reasoning."""

    begin: str
    end: str

    @classmethod
    def of(cls, template: str) -> Marks | None:
        """Return the marks that a chat template writes, if it has any."""
        return next((cls(*pair) for pair in MARKS if pair[1] in template), None)

    def is_open_after(self, prompt: str, messages: Sequence[Mapping[str, Any]], *, continued: bool) -> bool:
        """Whether an answer begins with reasoning that the prompt has opened."""
        if not continued:
            return prompt.rstrip().endswith(self.begin)
        said = messages[-1].get("content")
        return isinstance(said, str) and said.rfind(self.begin) > said.rfind(self.end)


class ReasoningSplit:
    """Parts an answer into reasoning and content, as its text comes.

    An answer reasons if the prompt has begun it, or if it begins with the mark. White space around the
    marks belongs to neither part, and what may be the beginning of a mark is held back.

    Args:
        marks: what encloses the reasoning; None if all is content.
        is_open: whether the prompt has begun it.
    """

    def __init__(self, marks: Marks | None, *, is_open: bool = False) -> None:
        self._marks = marks
        self._state = "content" if marks is None else "reasoning" if is_open else "begin"
        self._held = ""
        self._strips = is_open  # white space at the beginning of a part

    def add(self, text: str) -> tuple[str, str]:
        """Return the reasoning and the content that a text adds."""
        self._held += text
        reasoning = content = ""
        if self._state == "begin":
            self._begin()
        if self._state == "reasoning":
            reasoning = self._reasoning()
        if self._state == "content":
            content = self._take(len(self._held))
        return reasoning, content

    def end(self) -> tuple[str, str]:
        """Return what was held back."""
        rest, self._held = self._held, ""
        return (rest.rstrip(), "") if self._state == "reasoning" else ("", rest)

    def _begin(self) -> None:
        """Find out whether the answer begins with the mark."""
        assert self._marks is not None
        text, mark = self._held.lstrip(), self._marks.begin
        if text.startswith(mark):
            self._held, self._state, self._strips = text[len(mark) :], "reasoning", True
        elif not mark.startswith(text):
            self._state = "content"

    def _reasoning(self) -> str:
        assert self._marks is not None
        mark = self._marks.end
        at = self._held.find(mark)
        if at < 0:
            n = len(self._held) - _n_held(self._held, mark)
            return self._take(len(self._held[:n].rstrip()))
        found = self._take(at).rstrip()
        self._held, self._state, self._strips = self._held[len(mark) :], "content", True
        return found

    def _take(self, n: int) -> str:
        taken, self._held = self._held[:n], self._held[n:]
        if self._strips:
            taken = taken.lstrip()
            self._strips = not taken
        return taken


def _n_held(text: str, mark: str) -> int:
    """Return how many characters at the end may be the beginning of a mark."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-n:])), 0)


__all__ = ["Marks", "ReasoningSplit"]
