"""Things that take turns, because machines grow slower and faster as they like."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

K = TypeVar("K")


def take_turns(work: Mapping[K, Callable[[], float]], rounds: int, seconds: float) -> dict[K, list[float]]:
    """Run each once a round; each returns how long it took.

    Every other round goes the other way, so that each comes first and last as often. No round begins after
    ``seconds``, but for the first: other work on the machine may make all of it slower than it seemed.

    Returns:
        The times of each, in seconds, those of one round in one place.
    """
    times: dict[K, list[float]] = {name: [] for name in work}
    begun = time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - begun > seconds:
            break
        for name, run in list(work.items())[:: -1 if number % 2 else 1]:
            times[name].append(run())
    return times


def medians(times: Mapping[K, list[float]]) -> dict[K, float]:
    """Return the median time of each."""
    return {name: statistics.median(found) for name, found in times.items()}


def fit(seconds: float, each: float, least: int, most: int) -> int:
    """Return how often something that takes ``each`` seconds fits, from ``least`` to ``most`` times."""
    return max(least, min(most, int(seconds / max(each, 1e-9))))
