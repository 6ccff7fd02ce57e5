"""Rounds: candidates take turns, so that a machine that slows down or speeds up treats all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

K = TypeVar("K")


def take_turns(work: Mapping[K, Callable[[], float]], rounds: int, seconds: float) -> dict[K, list[float]]:
    """Run each candidate once per round.

    Every other round runs in reverse order, so that each candidate is first and last equally often.

    Args:
        work: candidates; each returns the seconds that it took.
        rounds: most rounds.
        seconds: no round but the first begins later than this, in case the machine is slower than planned.

    Returns:
        The seconds of each candidate, one entry per round.
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
    """Return the median time of each candidate, in seconds."""
    return {name: statistics.median(found) for name, found in times.items()}


def fit(seconds: float, each: float, least: int, most: int) -> int:
    """Return how many times ``each`` seconds fit into ``seconds``, at least ``least``, at most ``most``."""
    return max(least, min(most, int(seconds / max(each, 1e-9))))
