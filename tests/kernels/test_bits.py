"""Results are the same to the last bit on every SIMD path and for any number of threads.

Ids and draws are the same on every machine.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.rows import KINDS, edits, equal, matrices, requests, row
from tinker_local import kernels


def everything(logits: np.ndarray, n_threads: int = 1) -> list[Any]:
    n_rows, size = logits.shape
    n = 60  # 4 temperatures x 5 top_k x 3 top_p
    given = requests(
        n,
        rows=np.arange(n) * n_rows // n,
        temperature=np.tile([0, 0.3, 1, 1.7], n // 4),
        top_k=np.tile([-1, 1, 40, 1500, 9000], n // 5),
        top_p=np.tile([1e-6, 0.97, 1], n // 3),
        sample=np.arange(n),
    )
    topk = min(100, size)
    positions = np.arange(n_rows, dtype=np.uint64)
    few = {name: values[::3].copy() for name, values in given.items()}
    few["min_p"] = np.tile(np.float32([0, 0.02]), n // 6)
    edited = edits(n // 3, size)
    return [
        kernels.sample_rows(logits, **few, edits=edited, n_threads=n_threads),
        kernels.sample_rows(logits, **given, topk=topk, n_threads=n_threads),
        kernels.score_rows(
            logits,
            targets=positions.astype(np.int32) % size,
            topk=topk,
            alt_k=3,
            alt_temperature=0.8,
            positions=positions,
            n_threads=n_threads,
        ),
    ]


def assert_same_on_every_path(logits: np.ndarray) -> None:
    before = kernels.simd_path()
    results = []
    for path in kernels.simd_paths():
        kernels.use_simd_path(path)
        results.append(everything(logits))
    kernels.use_simd_path(before)
    for other in results[1:]:
        assert all(equal(a, b) for a, b in zip(results[0], other, strict=True))


@given(logits=matrices())
def test_small_rows_on_every_path(logits: np.ndarray) -> None:
    assert_same_on_every_path(logits)


@pytest.mark.parametrize("kind", KINDS)
def test_large_rows_on_every_path(kind: str) -> None:
    rng = np.random.default_rng(12)
    assert_same_on_every_path(np.stack([row(rng, kind, 33_333) for _ in range(2)]))


@pytest.mark.parametrize("n_threads", [2, 3, 8])
@pytest.mark.parametrize(("n_rows", "size"), [(1, 300_001), (3, 200_000), (40, 20_000)])
def test_any_number_of_threads(n_rows: int, size: int, n_threads: int) -> None:
    rng = np.random.default_rng(13)
    logits = np.stack([row(rng, KINDS[i % 5], size) for i in range(n_rows)])
    alone = everything(logits)
    together = everything(logits, n_threads)
    assert all(equal(a, b) for a, b in zip(alone, together, strict=True))


@given(data=st.data())
def test_any_alignment(data: st.DataObject, simd_path: str) -> None:
    x = row(np.random.default_rng(14), "normal", 3000)
    expected = everything(x[None].copy())
    memory = np.zeros(3100, dtype=np.float32)
    start = data.draw(st.integers(0, 64))
    memory[start : start + 3000] = x
    shifted = everything(memory[start : start + 3000][None])
    assert all(equal(a, b) for a, b in zip(expected, shifted, strict=True))


def test_the_same_draws_on_every_machine(simd_path: str) -> None:
    # Logits from integers, so that no library's logarithm has a say in them.
    words = np.random.Philox(key=1).random_raw(3 * 40_000).reshape(3, 2, 20_000) >> 40
    logits = ((words.sum(axis=0).astype(np.float64) - 3 * 2**23) * 2.0**-20).astype(np.float32)
    logits[1, ::3] = -np.inf
    edited, draws, scores = everything(logits)
    parts = [edited.tokens, draws.tokens, draws.topk_ids, scores.topk_ids, scores.alt_tokens]
    digest = hashlib.sha256(b"".join(part.astype("<i4").tobytes() for part in parts)).hexdigest()
    assert digest[:16] == "1fc341f2c0aa3d2a"
