"""ThreadSpeed: our kernels in llama.cpp's graphs, with different numbers of threads."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tinker_local.bench.bare_loop import BareLoop
from tinker_local.bench.rounds import fit, medians, take_turns
from tinker_local.llama.machine import default_threads

_MOST = 5  # numbers of threads that are measured
_SAME = 0.97  # share of the best speed that counts as equally good
_N_SCORED, _N_SAMPLES = 64, 8


@dataclass(frozen=True, slots=True)
class ThreadSpeed:
    """Tokens per second with a number of threads: scoring, one sample, and eight samples at once."""

    n_threads: int
    score: float
    sample: float
    batch: float

    @property
    def several(self) -> float:
        """Geometric mean of ``score`` and ``batch``, which compute several tokens at once."""
        return math.sqrt(self.score * self.batch)


def thread_counts() -> list[int]:
    """Return the numbers of threads to measure: powers of two, the physical cores, all logical CPUs."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    counts = {1 << i for i in range(usable.bit_length())} | {min(default_threads(), usable), usable}
    return sorted(counts)[-_MOST:]


def measure_threads(
    bare: BareLoop, counts: Sequence[int], seconds: float, rounds: int
) -> list[ThreadSpeed]:
    """Measure each number of threads in about ``seconds`` all together; then restore the context's own."""
    context = bare.context
    scored = np.arange(_N_SCORED, dtype=np.int32) % context.model.n_vocab
    before = context.n_threads, context.n_threads_batch
    most = min(_N_SAMPLES, context.n_sequences)

    def run(n_threads: int, n_samples: int, n_steps: int) -> float:  # no samples: score
        context.set_threads(n_threads)
        return bare.sample(scored[:8], n_samples, n_steps) if n_samples else bare.score(scored)

    try:
        for count in counts:  # warm up: start the threads, load the pages
            run(count, 1, 1)
        share = seconds / (3 * rounds * len(counts))
        steps = {n: fit(share, run(counts[-1], n, 2) / 2, 2, 32) for n in (1, most)} | {0: 0}
        work = {(count, n): partial(run, count, n, steps[n]) for count in counts for n in steps}
        found = medians(take_turns(work, rounds, seconds))
    finally:
        context.set_threads(*before)
    return [
        ThreadSpeed(
            count,
            len(scored) / found[count, 0],
            steps[1] / found[count, 1],
            most * steps[most] / found[count, most],
        )
        for count in counts
    ]


def recommended_threads(found: Sequence[ThreadSpeed]) -> tuple[int, int]:
    """Return the fewest threads within 3 % of the best: for one sample, and for several tokens at once."""
    return _fewest(found, lambda speed: speed.sample), _fewest(found, lambda speed: speed.several)


def _fewest(found: Sequence[ThreadSpeed], speed: Callable[[ThreadSpeed], float]) -> int:
    best = max(map(speed, found))
    return min(each.n_threads for each in found if speed(each) >= _SAME * best)
