"""Speed of the kernels that turn logits into numbers, compared with only reading the logits.

    python tests/benchmarks/kernels.py [--vocabulary 151936] [--rows 1 32] [--threads 2]

Each kernel takes turns with a bare read of the same rows (their largest logit, by the same code and
threads). Medians over the rounds are printed, because machines are noisy.

Rows come "from memory" (each round other rows, from a buffer larger than any cache) or "from cache" (the
same rows again, as a decode step finds the rows written last). numpy, scipy and torch, where installed, do
the same work on all rows at once; numpy also row by row, which needs less memory.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np

from tinker_local import kernels

Work = Callable[[np.ndarray, int], Any]
BUFFER = 1 << 29  # bytes; several times the largest cache


def model_like(rng: np.random.Generator, n_rows: int, size: int) -> np.ndarray:
    """Return logits like a model's: a broad bulk, and a head with most of the probability, about 3 nats."""
    logits = rng.standard_normal((n_rows, size), dtype=np.float32) * 2.5
    head = min(200, size)
    for row in logits:
        row[rng.choice(size, head, replace=False)] = 20 - 1.7 * np.log(np.arange(1, head + 1))
    return logits


def sampling(temperature: float, top_k: int, top_p: float, topk: int = 0) -> Work:
    @cache
    def given(n: int) -> dict[str, Any]:
        return {
            "rows": np.arange(n, dtype=np.int32),
            "temperature": np.full(n, temperature, dtype=np.float32),
            "top_k": np.full(n, top_k, dtype=np.int32),
            "top_p": np.full(n, top_p, dtype=np.float32),
            "seed": np.zeros(n, dtype=np.uint64),
            "sample": np.arange(n, dtype=np.uint64),
            "position": np.zeros(n, dtype=np.uint64),
            "topk": topk,
        }

    return lambda x, n_threads: kernels.sample_rows(x, **given(len(x)), n_threads=n_threads)


def scoring(target: bool = False, ids: int = 0, alt: bool = False, **wanted: Any) -> Work:
    @cache
    def given(n: int) -> dict[str, Any]:
        return {
            "targets": np.zeros(n, dtype=np.int32) if target else None,
            "ids": np.zeros((n, ids), dtype=np.int32) if ids else None,
            "positions": np.arange(n, dtype=np.uint64) if alt else None,
            **wanted,
        }

    return lambda x, n_threads: kernels.score_rows(x, **given(len(x)), n_threads=n_threads)


def read(x: np.ndarray, n_threads: int) -> float:
    return kernels._kernels.largest(x, n_threads)


OURS: dict[str, Work] = {
    "log-sum-exp": scoring(),
    "log-sum-exp, target": scoring(target=True),
    "log-sum-exp, target, top-20": scoring(target=True, topk=20),
    "log-sum-exp, top-1024": scoring(topk=1024),
    "log-sum-exp, 100 ids": scoring(ids=100),
    "log-sum-exp, 4 draws at 0.8": scoring(alt=True, alt_k=4, alt_temperature=0.8),
    "sample greedily": sampling(0, -1, 1),
    "sample at 1": sampling(1, -1, 1),
    "sample at 0.8": sampling(0.8, -1, 1),
    "sample at 0.8, top_k 50": sampling(0.8, 50, 1),
    "sample at 0.8, top_p 0.95": sampling(0.8, -1, 0.95),
    "sample at 0.8, top_k 50, top_p 0.95": sampling(0.8, 50, 0.95),
    "the same and top-20": sampling(0.8, 50, 0.95, topk=20),
    "sample at 0.8, top_k 5000, top_p 0.95": sampling(0.8, 5000, 0.95),
    "sample at 3, top_p 0.95": sampling(3, -1, 0.95),
}


def numpy_score(x: np.ndarray, k: int = 0) -> Any:
    largest = x.max(axis=1, keepdims=True)
    sums = largest + np.log(np.exp(x - largest).sum(axis=1, keepdims=True))
    if not k:
        return sums
    ids = np.argpartition(-x, k, axis=1)[:, :k]
    ids = np.take_along_axis(ids, np.argsort(-np.take_along_axis(x, ids, 1), axis=1), 1)
    return ids, np.take_along_axis(x, ids, 1) - sums


def numpy_sample(x: np.ndarray) -> Any:
    for row in x / np.float32(0.8):
        order = np.argpartition(-row, 50)[:50]
        order = order[np.argsort(-row[order])]
        weights = np.exp(row[order] - row[order[0]])
        cumulative = np.cumsum(weights / weights.sum())
        kept = int(np.searchsorted(cumulative, 0.95)) + 1
        int(np.searchsorted(cumulative[:kept], 0.5 * cumulative[kept - 1]))
    return numpy_score(x)


def others(n_threads: int) -> Iterator[tuple[str, str, Callable[[np.ndarray], Any]]]:
    """Return (kernel, library, function) for the other libraries' versions of our kernels."""
    yield "log-sum-exp", "numpy", numpy_score
    yield "log-sum-exp, target, top-20", "numpy", lambda x: numpy_score(x, 20)
    yield (
        "log-sum-exp, target, top-20",
        "by row",
        lambda x: [numpy_score(row[None], 20) for row in x],
    )
    yield "sample at 0.8, top_k 50, top_p 0.95", "numpy", numpy_sample
    if find_spec("scipy"):
        from scipy.special import logsumexp

        yield "log-sum-exp", "scipy", lambda x: logsumexp(x, axis=1)
    if find_spec("torch"):
        import torch

        torch.set_num_threads(n_threads)

        def torch_score(x: np.ndarray) -> Any:
            logits = torch.from_numpy(x)
            top = logits.topk(20, dim=1)
            return top.indices, top.values - logits.logsumexp(dim=1, keepdim=True)

        yield "log-sum-exp", "torch", lambda x: torch.from_numpy(x).logsumexp(dim=1)
        yield "log-sum-exp, target, top-20", "torch", torch_score


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(buffer: np.ndarray, n: int, cached: bool, n_threads: int, seconds: float) -> None:
    names = {"read": read, **OURS}
    times: dict[str, list[float]] = {name: [] for name in names}
    start, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["read"]) < 5:
        for name, work in names.items():
            start = 0 if cached or start + 2 * n > len(buffer) else start + n
            x = buffer[start : start + n]
            if cached:
                work(x, n_threads)
            times[name].append(timed(lambda work=work, x=x: work(x, n_threads)))
    beside: dict[str, str] = {}
    for name, whose, work in others(n_threads):
        rounds = 5 if n < 100 else 1
        theirs = median(timed(lambda work=work: work(buffer[:n])) for _ in range(rounds))
        ratio = theirs / median(times[name])
        beside[name] = beside.get(name, "") + f"  {whose} {theirs * 1e3:.4g} ms = {ratio:.0f}x"
    size = n * buffer.shape[1] * 4
    place = "cache" if cached else "memory"
    print(f"\n{n} rows of {buffer.shape[1]:,} from {place}")
    for name, values in times.items():
        t = median(values)
        ratio = t / median(times["read"])
        print(
            f"  {name:38} {t * 1e3:9.3f} ms {size / t / 1e9:6.1f} GB/s"
            f" {ratio:5.2f} reads{beside.get(name, '')}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[49_152, 151_936, 262_144])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 512])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--path", default=kernels.simd_path(), help="the SIMD path")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each table")
    arguments = parser.parse_args()
    kernels.use_simd_path(arguments.path)
    print(f"SIMD path {arguments.path}, {arguments.threads} threads")
    for size in arguments.vocabulary:
        n_rows = max(*arguments.rows, BUFFER // (4 * size))
        buffer = model_like(np.random.default_rng(0), n_rows, size)
        for n in arguments.rows:
            for cached in (False, True) if n * size * 4 < BUFFER // 8 else (False,):
                measure(buffer, n, cached, arguments.threads, arguments.seconds)


if __name__ == "__main__":
    main()
