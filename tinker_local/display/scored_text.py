"""ScoredText: a text with the log-probability of each token; TextComparison: one text, two models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

SURPRISING = math.log(0.01)
"""Tokens with a lower log-probability (1 %) are listed, with what the model expected instead."""

Pairs = Sequence[tuple[int, float]]
TextOf = Callable[[int], str]


class Alternative(NamedTuple):
    """A token that could have stood in another's place, and its log-probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a scored text.

    Attributes:
        token_id: id of the token.
        text: text of the token; bytes that are not UTF-8 are lone surrogates (``surrogateescape``).
        logprob: natural log of the token's probability; None if it was not scored.
        alternatives: the most probable tokens in its place, best first; empty unless asked for.
    """

    token_id: int
    text: str
    logprob: float | None
    alternatives: tuple[Alternative, ...] = ()

    @property
    def rank(self) -> int | None:
        """Place of the token among the alternatives, from 1; None if it is not among them."""
        ids = [alternative.token_id for alternative in self.alternatives]
        return ids.index(self.token_id) + 1 if self.token_id in ids else None


@dataclass(frozen=True)
class ScoredText:
    """A text with the log-probability that a model gives each token.

    Attributes:
        name: name of the model.
        tokens: the tokens, in order.
        has_texts: False if there is no vocabulary; the texts of tokens are then their ids.
    """

    name: str
    tokens: Sequence[ScoredToken]
    has_texts: bool = True

    @classmethod
    def of(
        cls,
        name: str,
        tokens: Sequence[int],
        logprobs: Sequence[float | None] | None,
        topk: Sequence[Pairs | None] | None = None,
        text_of: TextOf | None = None,
    ) -> ScoredText:
        """Build a scored text from the lists of a response; all are aligned with ``tokens``.

        Args:
            name: name of the model.
            tokens: token ids.
            logprobs: log-probabilities, None for a token that was not scored; None if none was.
            topk: for each token the alternatives ``(token_id, logprob)``, best first.
            text_of: returns the text of a token id, as in ``ScoredToken``; None without a vocabulary.
        """
        text = cache(text_of or str)
        scores = logprobs if logprobs is not None else [None] * len(tokens)
        pairs = topk if topk is not None else [None] * len(tokens)
        made = [
            ScoredToken(token, text(token), score, tuple(Alternative(i, text(i), p) for i, p in best or ()))
            for token, score, best in zip(tokens, scores, pairs, strict=True)
        ]
        return cls(name, made, text_of is not None)

    @cached_property
    def count(self) -> int:
        """Number of scored tokens."""
        return sum(token.logprob is not None for token in self.tokens)

    @cached_property
    def total(self) -> float:
        """Sum of the log-probabilities, in nats."""
        return math.fsum(token.logprob for token in self.tokens if token.logprob is not None)

    @property
    def mean(self) -> float:
        """Mean log-probability of the scored tokens, in nats; 0 if there are none."""
        return self.total / self.count if self.count else 0.0

    @property
    def perplexity(self) -> float:
        """Perplexity: exp(-mean)."""
        return math.exp(-self.mean) if self.mean > -700 else math.inf

    def surprising(self, most: int) -> list[int]:
        """Return the places of up to ``most`` tokens below ``SURPRISING``, the least probable first."""
        found = [
            (token.logprob, i)
            for i, token in enumerate(self.tokens)
            if token.logprob is not None and token.logprob < SURPRISING
        ]
        return [i for _, i in sorted(found)[:most]]


@dataclass(frozen=True)
class TextComparison:
    """One text scored by two models: ``first`` is A, ``second`` is B."""

    first: ScoredText
    second: ScoredText

    @cached_property
    def differences(self) -> list[float | None] | None:
        """Log-probability of B minus that of A for each token, in nats.

        None for a token that one of them did not score. No list at all if the models tokenize the text
        differently.
        """
        pairs = list(zip(self.first.tokens, self.second.tokens, strict=False))
        if len(self.first.tokens) != len(self.second.tokens) or any(
            a.token_id != b.token_id or a.text != b.text for a, b in pairs
        ):
            return None
        return [None if a.logprob is None or b.logprob is None else b.logprob - a.logprob for a, b in pairs]

    def largest(self, most: int, at_least: float = 0.1) -> list[int]:
        """Return the places of the ``most`` largest differences of ``at_least`` nats, the largest first."""
        sizes = [(-abs(d), i) for i, d in enumerate(self.differences or ()) if d is not None]
        return [i for size, i in sorted(sizes)[:most] if -size >= at_least]


__all__ = ["SURPRISING", "Alternative", "ScoredText", "ScoredToken", "TextComparison", "TextOf"]
