"""Rows of logits to test with, and what to compare results with."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinker_local import kernels
from tinker_local.kernels import reference

LOWEST = float(np.finfo(np.float32).min)


@st.composite
def matrices(draw: st.DrawFn, max_rows: int = 3, max_size: int = 1100) -> np.ndarray:
    """Rows such as models give, and such as they never give, of 1 to `max_size` logits."""
    n_rows = draw(st.integers(1, max_rows))
    edges = [1, 2, 15, 16, 17, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025]
    edge = st.sampled_from([e for e in edges if e <= max_size])
    size = draw(st.one_of(edge, st.integers(1, max_size)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return np.stack([row(rng, draw(st.sampled_from(KINDS)), size) for _ in range(n_rows)])


KINDS = [
    "normal", "flat", "wide", "few values", "rising", "falling", "one peak", "masked",
    "nearly all masked", "lowest", "huge", "twins",
]  # fmt: skip


def row(rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    """One row of `size` logits of a kind."""
    x = rng.standard_normal(size) * 3
    match kind:
        case "flat":
            x = np.full(size, rng.uniform(-100, 100))
        case "wide":
            x = rng.uniform(-100, 100, size)
        case "few values":
            x = rng.integers(-2, 3, size).astype(float)
        case "rising":
            x = np.linspace(-20, 20, size)
        case "falling":
            x = np.linspace(20, -20, size)
        case "one peak":
            x[rng.integers(size)] = 60
        case "masked":
            x[rng.random(size) < 0.5] = -np.inf
            x[rng.integers(size)] = 1
        case "nearly all masked":
            kept = rng.integers(0, size, 2)
            x = np.where(np.isin(np.arange(size), kept), x, -np.inf)
        case "lowest":
            x[rng.random(size) < 0.5] = LOWEST
            x[rng.integers(size)] = 1
        case "huge":
            x = x * 1e30
        case "twins":
            x[: size // 2] = x[-(size // 2) :] if size > 1 else x[:0]
    return x.astype(np.float32)


def close(a: Any, b: Any) -> Any:
    """Within 2e-6, absolute or relative: what the kernels promise."""
    return np.isclose(a, b, rtol=2e-6, atol=2e-6, equal_nan=True)


def assert_drawn(
    x: np.ndarray, settings: tuple[float, int, float, float], u: float, token: int, logprob: float
) -> None:
    """`token` is what u draws from the row, and `logprob` its log-probability.

    Where a sum of probabilities comes within rounding of top_p or of u, both sides are right.
    """
    x = x.astype(np.float64)
    temperature, top_k, top_p, min_p = settings
    if temperature == 0:
        assert token == reference.best_first(x)[0]
        assert close(logprob, x[token] - reference.logsumexp(x))
        return
    assert np.isfinite(logprob)
    for p in (top_p, top_p * (1 - 2e-6), min(top_p * (1 + 2e-6), 1.0)):
        probabilities = reference.truncated(x, temperature, top_k, p, min_p)
        below = probabilities[:token].sum()
        fits = below - 2e-6 <= u <= below + probabilities[token] + 2e-6
        if probabilities[token] > 0 and fits and close(logprob, np.log(probabilities[token])):
            return
    raise AssertionError(f"token {token} at {logprob}: not what {u} draws with {settings}")


def requests(n: int, **given: Any) -> dict[str, np.ndarray]:
    """Arguments of `sample_rows` for n requests, each value one or an array of n."""
    types = {
        "rows": np.int32,
        "temperature": np.float32,
        "top_k": np.int32,
        "top_p": np.float32,
        "min_p": np.float32,
        "seed": np.uint64,
        "sample": np.uint64,
        "position": np.uint64,
    }
    usual = {"rows": 0, "temperature": 1, "top_k": -1, "top_p": 1}
    values = {name: given.get(name, usual.get(name, 0)) for name in types}
    return {
        name: np.ascontiguousarray(np.broadcast_to(np.asarray(value), (n,)), dtype=types[name])
        for name, value in values.items()
    }


def edits(n: int, size: int, seed: int = 0) -> kernels.LogitEdits:
    """Edits of n requests on rows of `size` logits: none for the first, then of 1 to 6 ids."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 7, n) * (np.arange(n) > 0)
    m = int(lengths.sum())
    return kernels.LogitEdits(
        np.cumsum([0, *lengths], dtype=np.int64),
        rng.integers(0, size, m).astype(np.int32),
        rng.choice([0, 5, -100, 10_000], m).astype(np.float32),
        rng.choice([0.5, 1, 1.3], m).astype(np.float32),
        rng.choice([0, 0.75, -2], m).astype(np.float32),
    )


def equal(a: kernels.ScoredRows | kernels.Draws, b: kernels.ScoredRows | kernels.Draws) -> bool:
    """Whether two results are the same to the last bit."""
    return all((u is None and v is None) or u.tobytes() == v.tobytes() for u, v in zip(a, b, strict=True))
