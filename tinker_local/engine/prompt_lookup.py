"""Draft tokens for speculative decoding, by prompt lookup.

A draft is what followed the same tokens before, in a request's prompt or samples
(https://github.com/apoorvumang/prompt-lookup-decoding). No second model is needed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tinker_local.engine.sequence import Prompt, Sample

_RUNS = (3, 1)  # lengths of the runs of tokens that are looked up, the longest first
_LONGEST_DRAFT = 15  # tokens
_LONGEST_PAUSE = 64  # chances skipped


class PromptLookup:
    """The texts of one request, by their runs of tokens.

    A sample's draft doubles in length when all of it is accepted, and is one token again when none is.
    Then the next chances to draft are skipped, twice as many each time, unless drafting is free.
    """

    def __init__(self, prompt: Prompt) -> None:
        self._prompt: list[int] = prompt.tokens.tolist()
        self._after: dict[tuple[int, ...], tuple[list[int], int]] = {}
        self._n_entered: dict[int, int] = {}  # by the samples' numbers, since samples hold their prompt
        self._drafting: defaultdict[int, _Drafting] = defaultdict(_Drafting)
        self._enter(self._prompt, 0, [])

    def draft(self, sample: Sample, free: int, most: int) -> list[int]:
        """Return tokens that may follow those drawn so far, perhaps none.

        Args:
            sample: the sample to continue.
            free: draft tokens that cost nothing.
            most: draft tokens after a long run that was seen before.
        """
        entered = self._n_entered.get(sample.index, 0)
        self._n_entered[sample.index] = self._enter(sample.drawn, entered, self._prompt)
        recent = _run(self._prompt, sample.drawn, len(sample.drawn))
        for n in _RUNS:
            if found := self._after.get(recent[-n:]):
                text, at = found
                if n == _RUNS[0] and self._drafting[sample.index].should_draft():
                    free = max(free, min(most, self._drafting[sample.index].length))
                return text[at : at + free]
        return []

    def accept(self, sample: Sample, n_drafted: int, n_accepted: int) -> None:
        """Note how many tokens of the last draft, from the first, were drawn."""
        if n_drafted:
            self._drafting[sample.index].update(n_drafted, n_accepted)

    def _enter(self, text: list[int], start: int, before: list[int]) -> int:
        """Note what follows the runs that end in ``text``, from ``start`` on; return where to continue."""
        for end in range(start + 1, len(text)):
            run = _run(before, text, end)
            for n in _RUNS:
                self._after[run[-n:]] = (text, end)
        return max(start, len(text) - 1)


@dataclass(slots=True)
class _Drafting:
    """How drafting goes for a sample.

    Attributes:
        length: tokens of the next draft.
        wait: chances to skip before it.
        pause: chances to skip after the next draft of which nothing is accepted.
    """

    length: int = 1
    wait: int = 0
    pause: int = 1

    def should_draft(self) -> bool:
        self.wait -= 1
        return self.wait < 0

    def update(self, n_drafted: int, n_accepted: int) -> None:
        if n_accepted == n_drafted:
            self.length, self.wait, self.pause = min(_LONGEST_DRAFT, 2 * self.length), 0, 1
        elif n_accepted == 0:
            self.length, self.wait, self.pause = 1, self.pause, min(_LONGEST_PAUSE, 2 * self.pause)


def _run(before: list[int], text: list[int], end: int) -> tuple[int, ...]:
    """Return the longest run to look up that ends before ``text[end]``; ``before`` precedes ``text``."""
    n = _RUNS[0]
    return tuple(text[end - n : end] if end >= n else [*before[end - n :], *text[:end]])
