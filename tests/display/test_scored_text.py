"""Sums, perplexity, surprising tokens and differences of scored texts."""

from __future__ import annotations

import math

import pytest

from tinker_local.display import ScoredText, TextComparison


def read(tokens: list[int], logprobs: list[float | None] | None, name: str = "x") -> ScoredText:
    return ScoredText.of(name, tokens, logprobs, [[(7, -0.1), (8, -3.0)]] * len(tokens), chr)


def test_totals() -> None:
    scored = read([5, 7, 8, 9], [None, -1.0, -3.0, -8.0])
    assert (scored.count, scored.total, scored.mean) == (3, -12.0, -4.0)
    assert scored.perplexity == pytest.approx(math.exp(4))
    assert [token.rank for token in scored.tokens] == [None, 1, 2, None]
    assert scored.surprising(5) == [3]
    nothing = read([5], [None])
    assert (nothing.count, nothing.total, nothing.mean, nothing.perplexity) == (0, 0.0, 0.0, 1.0)
    assert read([5, 6], None).count == 0
    assert read([5, 6], [None, -1e6]).perplexity == math.inf


def test_the_least_probable_come_first() -> None:
    assert read([0, 1, 2, 3], [-5.0, -9.0, -4.0, -9.5]).surprising(2) == [3, 1]


def test_differences() -> None:
    first, second = read([1, 2, 3], [None, -1.0, -2.0]), read([1, 2, 3], [None, -1.05, -0.5])
    comparison = TextComparison(first, second)
    assert comparison.differences == [None, pytest.approx(-0.05), 1.5]
    assert comparison.largest(5) == [2]
    assert TextComparison(first, read([1, 2], [None, -1.0])).differences is None
    assert TextComparison(first, read([1, 2, 4], [None, -1.0, -1.0])).differences is None


def test_lists_must_be_aligned() -> None:
    with pytest.raises(ValueError, match="zip"):
        read([1, 2], [None])
