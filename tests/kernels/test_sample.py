from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.rows import assert_drawn, close, edits, matrices, requests, row
from tinker_local import kernels
from tinker_local.kernels import reference

temperatures = st.sampled_from([0.0, 1e-30, 0.01, 0.7, 1.0, 1.5, 1e30])
top_ks = st.sampled_from([-1, 1, 2, 40, 300, 1024, 1025, 10_000])
min_ps = st.sampled_from([0.0, 1e-3, 0.05, 0.5, 1.0])
top_ps = st.sampled_from([1e-6, 0.1, 0.5, 0.9, 0.999, 1 - 2**-24, 1.0])


def check(
    logits: np.ndarray,
    given: dict[str, np.ndarray],
    draws: kernels.Draws,
    edited: kernels.LogitEdits | None = None,
) -> None:
    for i, r in enumerate(given["rows"]):
        x = logits[r] if edited is None else reference.edited(logits[r].astype(np.float64), edited, i)
        settings = (
            np.float64(given["temperature"][i]),
            int(given["top_k"][i]),
            np.float64(given["top_p"][i]),
            np.float64(given["min_p"][i]),
        )
        key = [int(given[name][i]) for name in ("seed", "sample", "position")]
        token = int(draws.tokens[i])
        assert_drawn(x, settings, reference.uniform(*key), token, draws.logprobs[i])
        raw = logits[r].astype(np.float64)
        assert close(draws.raw_logprobs[i], raw[token] - reference.logsumexp(raw))


@given(logits=matrices(), data=st.data())
def test_small_rows(logits: np.ndarray, data: st.DataObject, simd_path: str) -> None:
    n = 5
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    given = requests(
        n,
        rows=rng.integers(0, len(logits), n),
        temperature=[data.draw(temperatures) for _ in range(n)],
        top_k=[data.draw(top_ks) for _ in range(n)],
        top_p=[data.draw(top_ps) for _ in range(n)],
        min_p=[data.draw(min_ps) for _ in range(n)],
        seed=rng.integers(0, 2**63, n),
        sample=rng.integers(0, 9, n),
        position=rng.integers(0, 2**40, n),
    )
    topk = min(3, logits.shape[1])
    edited = (
        edits(n, logits.shape[1], data.draw(st.integers(0, 2**32))) if data.draw(st.booleans()) else None
    )
    draws = kernels.sample_rows(logits, **given, edits=edited, topk=topk)
    expected = reference.sample_rows(logits, **given, edits=edited, topk=topk)
    check(logits, given, draws, edited)
    assert (draws.topk_ids == expected.topk_ids).all()
    assert close(draws.topk_logprobs, expected.topk_logprobs).all()


@pytest.mark.parametrize(
    "kind", ["normal", "flat", "few values", "falling", "one peak", "masked", "lowest", "wide"]
)
def test_large_rows(kind: str, simd_path: str) -> None:
    # Long enough for every way of cutting: a short list, a search among many, ties.
    logits = row(np.random.default_rng(3), kind, 20_011)[None]
    grid = [
        (temperature, top_k, top_p)
        for temperature in (0.5, 1.0, 3.0)
        for top_k in (-1, 50, 1024, 1500, 15_000)
        for top_p in (1e-6, 0.3, 0.95, 1.0)
    ]
    given = requests(
        len(grid),
        temperature=[g[0] for g in grid],
        top_k=[g[1] for g in grid],
        top_p=[g[2] for g in grid],
        position=np.arange(len(grid)),
    )
    check(logits, given, kernels.sample_rows(logits, **given))
    given["min_p"][:] = np.tile([0.01, 0.3, 1.0], len(grid) // 3)
    edited = edits(len(grid), logits.shape[1])
    check(logits, given, kernels.sample_rows(logits, **given, edits=edited), edited)


def test_min_p_keeps_what_is_just_as_probable(simd_path: str) -> None:
    # Two logits at the very bound, 0.25 of the best; the next float below it is out.
    logits = np.full((1, 700), -np.inf, dtype=np.float32)
    at = np.float32(5 + np.log(0.25))
    bound = at if float(at) >= 5 + np.log(0.25) else np.nextafter(at, np.float32(9))
    logits[0, [3, 300, 699]] = 5, bound, bound
    logits[0, 400] = np.nextafter(bound, np.float32(-9))
    for top_k, top_p in [(-1, 1), (5, 1), (-1, 0.99)]:
        given = requests(400, top_k=top_k, top_p=top_p, min_p=0.25, position=np.arange(400))
        draws = kernels.sample_rows(logits, **given)
        assert {*draws.tokens.tolist()} == {3, 300, 699}
        assert close(np.exp(draws.logprobs[draws.tokens == 3]), 2 / 3).all()


def test_edits_leave_what_a_model_excludes_and_stay_finite(simd_path: str) -> None:
    logits = np.array([[-np.inf, 3e38, 1, -3e38]], dtype=np.float32)
    edited = kernels.LogitEdits(
        np.array([0, 4]),
        np.arange(4, dtype=np.int32),
        np.array([1e4, 3e38, 0, -3e38], np.float32),
        np.array([1, 0.01, 1, 100], np.float32),
        np.zeros(4, np.float32),
    )
    draws = kernels.sample_rows(logits, **requests(1, temperature=0), edits=edited)
    assert (draws.tokens[0], draws.logprobs[0], draws.raw_logprobs[0]) == (1, 0, 0)


def test_search_ends_for_any_spacing_of_logits(simd_path: str) -> None:
    # Neighbouring floats, and floats of every size: neither value nor order halves both quickly.
    n = 30_000
    near_one = np.nextafter(np.full(n, 1, np.float32), np.float32(2)) + np.arange(n) * 2.0**-23
    signs = np.where(np.arange(n) % 2, 1, -1)
    all_sizes = signs * 2.0 ** np.linspace(-149, 1, n)
    logits = np.stack([near_one, all_sizes]).astype(np.float32)
    for r in (0, 1):
        given = requests(
            6, rows=r, top_k=[-1, -1, 2000, 29_999, 10_000, -1], top_p=[0.5, 0.99, 1, 1, 0.5, 1e-3]
        )
        given["position"] = np.arange(6, dtype=np.uint64)
        check(logits, given, kernels.sample_rows(logits, **given))


def test_greedy_takes_the_lowest_of_equals(simd_path: str) -> None:
    logits = np.zeros((1, 1000), dtype=np.float32)
    logits[0, [300, 301, 999]] = 5
    draws = kernels.sample_rows(logits, **requests(1, temperature=0, top_k=7, top_p=0.1))
    assert draws.tokens[0] == 300
    assert draws.logprobs[0] == draws.raw_logprobs[0]
    assert close(draws.logprobs[0], 5 - reference.logsumexp(logits[0].astype(float)))


def test_ties_at_the_cut_go_to_lower_ids(simd_path: str) -> None:
    logits = np.zeros((1, 5000), dtype=np.float32)
    n = 4000
    for top_k, top_p, kept in [(3, 1, 3), (2000, 1, 2000), (-1, 0.5, 2500), (3000, 0.5, 1500)]:
        given = requests(n, top_k=top_k, top_p=top_p, position=np.arange(n))
        draws = kernels.sample_rows(logits, **given)
        assert draws.tokens.max() < kept
        assert draws.tokens.max() > kept * 0.98 - 1
        assert close(draws.logprobs, -np.log(kept)).all()


def test_masked_ids_are_never_drawn(simd_path: str) -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((1, 2000)).astype(np.float32)
    logits[0, rng.random(2000) < 0.9] = -np.inf
    for temperature in (0.5, 1.0, 1e30):
        given = requests(5000, temperature=temperature, position=np.arange(5000))
        tokens = kernels.sample_rows(logits, **given).tokens
        assert np.isfinite(logits[0, tokens]).all()


def test_a_sample_does_not_depend_on_the_others() -> None:
    logits = np.random.default_rng(2).standard_normal((4, 3000)).astype(np.float32)
    n = 64
    rng = np.random.default_rng(4)
    given = requests(
        n,
        rows=rng.integers(0, 4, n),
        temperature=rng.choice([0.5, 1.0], n),
        top_k=rng.choice([-1, 40], n),
        top_p=rng.choice([0.9, 1.0], n),
        seed=rng.integers(0, 3, n),
        sample=np.arange(n),
        position=rng.integers(0, 9, n),
    )
    together = kernels.sample_rows(logits, **given)
    for order in (np.arange(n)[::-1], rng.permutation(n)[:10], np.array([17])):
        part = {name: np.ascontiguousarray(values[order]) for name, values in given.items()}
        alone = kernels.sample_rows(logits, **part)
        assert (alone.tokens == together.tokens[order]).all()
        assert (alone.logprobs == together.logprobs[order]).all()


def test_more_samples_begin_with_the_same_ones() -> None:
    logits = np.random.default_rng(2).standard_normal((1, 3000)).astype(np.float32)
    few = kernels.sample_rows(logits, **requests(3, seed=9, sample=np.arange(3)))
    many = kernels.sample_rows(logits, **requests(50, seed=9, sample=np.arange(50)))
    assert few.tokens.tolist() == many.tokens[:3].tolist()
    assert len(set(many.tokens.tolist())) > 25
