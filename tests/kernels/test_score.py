from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.rows import assert_drawn, close, matrices, row
from tinker_local import kernels
from tinker_local.kernels import reference


@given(logits=matrices(), data=st.data())
def test_everything_at_once(logits: np.ndarray, data: st.DataObject, simd_path: str) -> None:
    n_rows, size = logits.shape
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n = data.draw(st.integers(1, 4))
    rows = rng.integers(0, n_rows, n).astype(np.int32)
    topk = data.draw(st.sampled_from([k for k in (1, 5, size) if k <= min(size, 1024)]))
    targets = rng.integers(-1, size, n).astype(np.int32)
    ids = rng.integers(-1, size, (n, 3)).astype(np.int32)
    wanted = {"rows": rows, "targets": targets, "topk": topk, "ids": ids}
    scores = kernels.score_rows(logits, **wanted)
    expected = reference.score_rows(logits, **wanted)
    assert close(scores.logsumexp, expected.logsumexp).all()
    assert close(scores.target_logprobs, expected.target_logprobs).all()
    assert (scores.topk_ids == expected.topk_ids).all()
    assert close(scores.topk_logprobs, expected.topk_logprobs).all()
    assert close(scores.id_logprobs, expected.id_logprobs).all()


@given(logits=matrices(), temperature=st.sampled_from([0.0, 1e-3, 0.3, 1.0, 2.5, 1e6]))
def test_alternatives(logits: np.ndarray, temperature: float, simd_path: str) -> None:
    n = len(logits)
    positions = np.arange(7, 7 + n, dtype=np.uint64)
    scores = kernels.score_rows(logits, alt_k=4, alt_temperature=temperature, seed=5, positions=positions)
    assert scores.alt_tokens is not None
    assert scores.alt_logprobs is not None
    for i, x in enumerate(logits.astype(np.float64)):
        for j in range(4):
            token = int(scores.alt_tokens[i, j])
            u = reference.uniform(5, j, int(positions[i]))
            raw = x[token] - reference.logsumexp(x)
            assert close(scores.alt_logprobs[i, j], raw)
            exact = np.float64(np.float32(temperature))
            drawn = reference.truncated(x, exact, -1, 1.0)[token] if temperature else 1.0
            logprob = np.log(drawn) if temperature else raw
            assert_drawn(logits[i], (exact, -1, 1.0, 0.0), u, token, logprob)


def test_ids_in_lists_of_any_length() -> None:
    logits = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    ids = np.array([4, -1, 49, 0, 0], dtype=np.int32)
    indptr = np.array([0, 3, 3, 5], dtype=np.int64)
    scores = kernels.score_rows(logits, ids=ids, ids_indptr=indptr)
    expected = reference.score_rows(logits, ids=ids, ids_indptr=indptr)
    assert scores.id_logprobs is not None
    assert scores.id_logprobs[1] == 0
    assert close(scores.id_logprobs, expected.id_logprobs).all()


def test_what_is_not_asked_for_is_none() -> None:
    scores = kernels.score_rows(np.zeros((2, 4), dtype=np.float32))
    assert scores.logsumexp.tolist() == pytest.approx([np.log(4)] * 2)
    assert scores[1:] == (None,) * 6


def test_no_rows() -> None:
    scores = kernels.score_rows(np.zeros((0, 4), dtype=np.float32), topk=2)
    assert scores.topk_ids is not None
    assert scores.topk_ids.shape == (0, 2)


def test_no_target_is_nan() -> None:
    targets = np.array([-1, 2], dtype=np.int32)
    scores = kernels.score_rows(np.zeros((2, 4), dtype=np.float32), targets=targets)
    assert scores.target_logprobs is not None
    assert np.isnan(scores.target_logprobs).tolist() == [True, False]


@pytest.mark.parametrize("k", [1, 20, 64, 1023, 1024])
@pytest.mark.parametrize("kind", ["normal", "few values", "rising", "falling", "masked"])
def test_top_of_a_large_row(kind: str, k: int, simd_path: str) -> None:
    logits = row(np.random.default_rng(k), kind, 70_001)[None]
    scores = kernels.score_rows(logits, topk=k)
    expected = reference.score_rows(logits, topk=k)
    assert (scores.topk_ids == expected.topk_ids).all()
    assert close(scores.topk_logprobs, expected.topk_logprobs).all()


@pytest.mark.parametrize("size", [1, 100, 50_257, 262_144])
def test_logsumexp_keeps_its_precision(size: int, simd_path: str) -> None:
    rng = np.random.default_rng(size)
    logits = np.stack(
        [
            rng.uniform(-100, 100, size),
            rng.uniform(99, 100, size),
            np.full(size, -100.0),
            rng.standard_normal(size) * 3,
            rng.integers(0, 2, size) * 1.7,
            np.linspace(0, 0.7, size),
        ]
    ).astype(np.float32)
    sums = kernels.score_rows(logits).logsumexp
    expected = [reference.logsumexp(x) for x in logits.astype(np.float64)]
    assert np.abs(sums - expected).max() < 1e-6
