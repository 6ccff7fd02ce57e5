"""What a sample may go on with: what followed the same tokens before, in its request's prompt or samples.

Prompt look-up decoding (https://github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tinker_local.engine.sequence import Prompt, Sample

_RUNS = (3, 1)  # lengths of the runs of tokens that are looked up, the longest first
_MOST = 15  # tokens guessed at once
_LONGEST_PAUSE = 64  # chances let go


class Guesses:
    """The texts of one request, by their runs of tokens.

    How many tokens are guessed for a sample doubles when all guesses come true, and is one again when
    none does; then the next chances to guess are let go, twice as many each time, unless guessing is free.
    """

    def __init__(self, prompt: Prompt) -> None:
        self._prompt: list[int] = prompt.tokens.tolist()
        self._after: dict[tuple[int, ...], tuple[list[int], int]] = {}
        self._n_entered: dict[int, int] = {}  # by the samples' numbers, since samples hold their prompt
        self._luck: defaultdict[int, _Luck] = defaultdict(_Luck)
        self._enter(self._prompt, 0, [])

    def next_tokens(self, sample: Sample, free: int, most: int) -> list[int]:
        """Return tokens that may follow those drawn so far, perhaps none.

        Args:
            sample: whose.
            free: how many cost nothing to try.
            most: how many may be tried after a long run that was seen before.
        """
        entered = self._n_entered.get(sample.index, 0)
        self._n_entered[sample.index] = self._enter(sample.drawn, entered, self._prompt)
        recent = _run(self._prompt, sample.drawn, len(sample.drawn))
        for n in _RUNS:
            if found := self._after.get(recent[-n:]):
                text, at = found
                if n == _RUNS[0] and self._luck[sample.index].dares():
                    free = max(free, min(most, self._luck[sample.index].length))
                return text[at : at + free]
        return []

    def came_true(self, sample: Sample, n_guessed: int, n_true: int) -> None:
        """Note how many of the last guesses, from the first, were drawn."""
        if n_guessed:
            self._luck[sample.index].turn(n_guessed, n_true)

    def _enter(self, text: list[int], start: int, before: list[int]) -> int:
        """Note what follows the runs that end in ``text``, from ``start`` on; return where to go on."""
        for end in range(start + 1, len(text)):
            run = _run(before, text, end)
            for n in _RUNS:
                self._after[run[-n:]] = (text, end)
        return max(start, len(text) - 1)


@dataclass(slots=True)
class _Luck:
    """How guessing went: tokens to guess next, chances to let go, and how many after the next failure."""

    length: int = 1
    wait: int = 0
    pause: int = 1

    def dares(self) -> bool:
        self.wait -= 1
        return self.wait < 0

    def turn(self, n_guessed: int, n_true: int) -> None:
        if n_true == n_guessed:
            self.length, self.wait, self.pause = min(_MOST, 2 * self.length), 0, 1
        elif n_true == 0:
            self.length, self.wait, self.pause = 1, self.pause, min(_LONGEST_PAUSE, 2 * self.pause)


def _run(before: list[int], text: list[int], end: int) -> tuple[int, ...]:
    """The longest run looked up that ends before ``text[end]``, where ``before`` comes before ``text``."""
    n = _RUNS[0]
    return tuple(text[end - n : end] if end >= n else [*before[end - n :], *text[:end]])
