"""Draws come as often as they should: chi-square tests, with fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.rows import requests, row
from tinker_local import kernels
from tinker_local.kernels import reference


def surprise(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Chi-square of the counts, as standard deviations of a normal (Wilson and Hilferty, 1931).

    The rarest tokens, expected fewer than 5 times each, are counted together.
    """
    expected = probabilities * counts.sum()
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    if expected[-1] < 5:
        counts, expected = counts[:-1], expected[:-1]
    degrees = len(counts) - 1
    if degrees == 0:
        return 0.0
    chi_square = ((counts - expected) ** 2 / expected).sum()
    spread = 2 / (9 * degrees)
    return float(((chi_square / degrees) ** (1 / 3) - (1 - spread)) / np.sqrt(spread))


def assert_frequencies(x: np.ndarray, settings: tuple[float, int, float], n: int, stream: str) -> None:
    temperature, top_k, top_p = settings
    given = requests(n, temperature=temperature, top_k=top_k, top_p=top_p, seed=20261123)
    given[stream] = np.arange(n, dtype=np.uint64)
    tokens = kernels.sample_rows(x[None], **given, n_threads=2).tokens
    counts = np.bincount(tokens, minlength=x.size)
    exact = (np.float64(np.float32(temperature)), top_k, np.float64(np.float32(top_p)))
    probabilities = reference.truncated(x.astype(np.float64), *exact)
    assert not counts[probabilities == 0].any()
    assert abs(surprise(counts, probabilities)) < 4


@pytest.mark.parametrize("stream", ["seed", "sample", "position"])
@pytest.mark.parametrize("top_p", [0.8, 1.0])
@pytest.mark.parametrize("top_k", [-1, 50])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.8])
def test_20_000_draws(temperature: float, top_k: int, top_p: float, stream: str) -> None:
    x = row(np.random.default_rng(5), "normal", 1000)
    assert_frequencies(x, (temperature, top_k, top_p), 20_000, stream)


@pytest.mark.parametrize("top_k", [-1, 50])
def test_20_000_draws_of_edited_logits(top_k: int) -> None:
    x, n = row(np.random.default_rng(5), "normal", 1000), 20_000
    ids = np.argsort(x)[:-30:-3].astype(np.int32)
    changes = np.linspace(-3, 3, len(ids), dtype=np.float32)
    one = kernels.LogitEdits(
        np.array([0, len(ids)]), ids, changes, np.exp(changes / 4), changes[::-1].copy()
    )
    places = np.arange(n + 1) * len(ids)
    edited = kernels.LogitEdits(places, *(np.tile(column, n) for column in one[1:]))
    given = requests(n, temperature=0.9, top_k=top_k, min_p=0.01, position=np.arange(n))
    tokens = kernels.sample_rows(x[None], **given, edits=edited, n_threads=2).tokens
    exact = np.float64(np.float32(0.9)), top_k, 1.0, np.float64(np.float32(0.01))
    probabilities = reference.truncated(reference.edited(x.astype(np.float64), one, 0), *exact)
    counts = np.bincount(tokens, minlength=x.size)
    assert not counts[probabilities == 0].any()
    assert (probabilities > 0).sum() > 10
    assert abs(surprise(counts, probabilities)) < 4


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("flat", (1.0, -1, 1.0)),
        ("one peak", (12.0, -1, 1.0)),
        ("normal", (1.0, -1, 1.0)),
        ("normal", (0.7, 50, 0.9)),
        ("normal", (1.5, 2000, 0.95)),
        ("normal", (2.0, -1, 0.9)),
        ("flat", (1.0, 1500, 0.9)),
        ("masked", (1.3, -1, 0.99)),
    ],
)
def test_1_000_000_draws(kind: str, settings: tuple[float, int, float]) -> None:
    x = row(np.random.default_rng(6), kind, 3001)
    assert_frequencies(x, settings, 1_000_000, "position")


def test_1_000_000_alternatives() -> None:
    x = row(np.random.default_rng(7), "normal", 3001)
    logits = np.ascontiguousarray(np.broadcast_to(x, (500, x.size)))
    tokens = kernels.score_rows(
        logits,
        alt_k=2000,
        alt_temperature=1.4,
        seed=1,
        positions=np.arange(500, dtype=np.uint64),
    ).alt_tokens
    assert tokens is not None
    counts = np.bincount(tokens.ravel(), minlength=x.size)
    exact = np.float64(np.float32(1.4))
    assert abs(surprise(counts, reference.truncated(x.astype(np.float64), exact, -1, 1.0))) < 4
