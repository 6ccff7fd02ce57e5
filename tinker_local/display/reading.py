"""Reading: a text's tokens with what a model thinks of each; Comparison: two of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

SURPRISING = math.log(0.01)
"""Tokens below this log-probability are listed with what the model would have written instead."""

Pairs = Sequence[tuple[int, float]]
TextOf = Callable[[int], str]


class Alternative(NamedTuple):
    """What a model could have written in a token's place, and its log-probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the text.

    Attributes:
        token_id: its id.
        text: what it stands for; bytes that are not UTF-8 as lone surrogates (``surrogateescape``).
        logprob: natural log of its probability; None where it was not scored.
        alternatives: the most probable tokens in its place, best first; empty if not asked for.
    """

    token_id: int
    text: str
    logprob: float | None
    alternatives: tuple[Alternative, ...] = ()

    @property
    def rank(self) -> int | None:
        """Its place among the alternatives, from 1; None if it is not one of them."""
        ids = [alternative.token_id for alternative in self.alternatives]
        return ids.index(self.token_id) + 1 if self.token_id in ids else None


@dataclass(frozen=True)
class Reading:
    """A text as a model reads it.

    Attributes:
        name: what the model is called.
        tokens: in order.
        has_texts: False where there is no vocabulary, and the texts of tokens are their ids.
    """

    name: str
    tokens: Sequence[Token]
    has_texts: bool = True

    @classmethod
    def of(
        cls,
        name: str,
        tokens: Sequence[int],
        logprobs: Sequence[float | None] | None,
        topk: Sequence[Pairs | None] | None = None,
        text_of: TextOf | None = None,
    ) -> Reading:
        """Make one of what a response holds; lists are aligned with ``tokens``.

        Args:
            name: what the model is called.
            tokens: their ids.
            logprobs: None where a token was not scored, or for all of them.
            topk: ``(token_id, logprob)`` of the alternatives of each, best first.
            text_of: the text of an id, as in ``Token``; None where there is no vocabulary.
        """
        text = cache(text_of or str)
        scores = logprobs if logprobs is not None else [None] * len(tokens)
        pairs = topk if topk is not None else [None] * len(tokens)
        made = [
            Token(token, text(token), score, tuple(Alternative(i, text(i), p) for i, p in best or ()))
            for token, score, best in zip(tokens, scores, pairs, strict=True)
        ]
        return cls(name, made, text_of is not None)

    @cached_property
    def count(self) -> int:
        """How many tokens were scored."""
        return sum(token.logprob is not None for token in self.tokens)

    @cached_property
    def total(self) -> float:
        """The sum of their log-probabilities, in nats."""
        return math.fsum(token.logprob for token in self.tokens if token.logprob is not None)

    @property
    def mean(self) -> float:
        """``total`` for each scored token; 0 if there is none."""
        return self.total / self.count if self.count else 0.0

    @property
    def perplexity(self) -> float:
        """exp(-mean)."""
        return math.exp(-self.mean) if self.mean > -700 else math.inf

    def surprising(self, most: int) -> list[int]:
        """Return where the least probable tokens are, below ``SURPRISING``, the least probable first."""
        found = [
            (token.logprob, i)
            for i, token in enumerate(self.tokens)
            if token.logprob is not None and token.logprob < SURPRISING
        ]
        return [i for _, i in sorted(found)[:most]]


@dataclass(frozen=True)
class Comparison:
    """A text as two models read it."""

    first: Reading
    second: Reading

    @cached_property
    def differences(self) -> list[float | None] | None:
        """For each token how much more probable the second finds it, in nats.

        None where one of them did not score it; no list at all where the two divide the text into
        different tokens.
        """
        pairs = list(zip(self.first.tokens, self.second.tokens, strict=False))
        if len(self.first.tokens) != len(self.second.tokens) or any(
            a.token_id != b.token_id or a.text != b.text for a, b in pairs
        ):
            return None
        return [None if a.logprob is None or b.logprob is None else b.logprob - a.logprob for a, b in pairs]

    def largest(self, most: int, at_least: float = 0.1) -> list[int]:
        """Return where the differences are largest, the largest first; ``at_least`` in nats."""
        sizes = [(-abs(d), i) for i, d in enumerate(self.differences or ()) if d is not None]
        return [i for size, i in sorted(sizes)[:most] if -size >= at_least]


__all__ = ["SURPRISING", "Alternative", "Comparison", "Reading", "TextOf", "Token"]
