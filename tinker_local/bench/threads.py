"""ThreadSpeed: the bare loop with different numbers of threads."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tinker_local.bench.bare_loop import BareLoop
from tinker_local.bench.rounds import fit, medians, take_turns
from tinker_local.llama.machine import default_threads

_MOST = 5  # numbers of threads that are measured
_SAME = 0.97  # share of the best speed that counts as equally good
_N_SCORED = 64


@dataclass(frozen=True, slots=True)
class ThreadSpeed:
    """Tokens per second with a number of threads: scoring, and sampling one at a time."""

    n_threads: int
    score: float
    sample: float

    @property
    def both(self) -> float:
        """Geometric mean of ``score`` and ``sample``."""
        return math.sqrt(self.score * self.sample)


def thread_counts() -> list[int]:
    """Return the numbers of threads to measure: powers of two, the physical cores, all logical CPUs."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    counts = {1 << i for i in range(usable.bit_length())} | {min(default_threads(), usable), usable}
    return sorted(counts)[-_MOST:]


def measure_threads(
    bare: BareLoop, tokens: NDArray[np.int32], counts: Sequence[int], seconds: float, rounds: int
) -> list[ThreadSpeed]:
    """Measure each number of threads in about ``seconds`` all together; then restore the context's own."""
    before = bare.context.n_threads
    scored = tokens[:_N_SCORED]

    def run(n_threads: int, n_steps: int) -> float:  # n_steps 0: score instead of sampling
        bare.context.set_threads(n_threads)
        return bare.sample(scored[:8], 1, n_steps) if n_steps else bare.score(scored)

    try:
        for count in counts:  # warm up: start the threads, load the pages
            run(count, 1)
        share = seconds / (2 * rounds * len(counts))
        n_steps = fit(share, run(before, 2) / 2, 2, 32)
        work = {(count, n): partial(run, count, n) for count in counts for n in (0, n_steps)}
        found = medians(take_turns(work, rounds, seconds))
    finally:
        bare.context.set_threads(before)
    return [
        ThreadSpeed(count, len(scored) / found[count, 0], n_steps / found[count, n_steps])
        for count in counts
    ]


def recommended_threads(found: Sequence[ThreadSpeed]) -> int:
    """Return the smallest number of threads within 3 % of the best, scoring and sampling together."""
    best = max(speed.both for speed in found)
    return min(speed.n_threads for speed in found if speed.both >= _SAME * best)
