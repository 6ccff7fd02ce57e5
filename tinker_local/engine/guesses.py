"""What a sample may go on with: what followed the same tokens before, in its request's prompt or samples.

Prompt look-up decoding (https://github.com/apoorvumang/prompt-lookup-decoding); guesses cost nothing
where more than one token of a sequence has to be computed anyway.
"""

from __future__ import annotations

from tinker_local.engine.sequence import Prompt, Sample

_RUNS = (3, 1)  # lengths of the runs of tokens that are looked up, the longest first
_MOST = 15  # tokens guessed at once


class Guesses:
    """The texts of one request, by their runs of tokens.

    How many tokens are guessed for a sample doubles when all guesses come true, and is one again when
    none does.
    """

    def __init__(self, prompt: Prompt) -> None:
        self._prompt: list[int] = prompt.tokens.tolist()
        self._after: dict[tuple[int, ...], tuple[list[int], int]] = {}
        self._n_entered: dict[Sample, int] = {}
        self._length: dict[Sample, int] = {}
        self._enter(self._prompt, 0, [])

    def next_tokens(self, sample: Sample, most: int) -> list[int]:
        """Return up to ``most`` tokens that may follow those drawn so far, perhaps none."""
        self._n_entered[sample] = self._enter(sample.drawn, self._n_entered.get(sample, 0), self._prompt)
        recent = _run(self._prompt, sample.drawn, len(sample.drawn))
        for n in _RUNS:
            if found := self._after.get(recent[-n:]):
                text, at = found
                return text[at : at + min(most, self._length.get(sample, 1))]
        return []

    def came_true(self, sample: Sample, n_guessed: int, n_true: int) -> None:
        """Note how many of the last guesses, from the first, were drawn."""
        if n_true == 0:
            self._length[sample] = 1
        elif n_true == n_guessed:
            self._length[sample] = min(_MOST, 2 * self._length.get(sample, 1))

    def _enter(self, text: list[int], start: int, before: list[int]) -> int:
        """Note what follows the runs that end in ``text``, from ``start`` on; return where to go on."""
        for end in range(start + 1, len(text)):
            run = _run(before, text, end)
            for n in _RUNS:
                self._after[run[-n:]] = (text, end)
        return max(start, len(text) - 1)


def _run(before: list[int], text: list[int], end: int) -> tuple[int, ...]:
    """The longest run looked up that ends before ``text[end]``, where ``before`` comes before ``text``."""
    n = _RUNS[0]
    return tuple(text[end - n : end] if end >= n else [*before[end - n :], *text[:end]])
