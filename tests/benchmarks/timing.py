"""Time two candidates that take turns, so that a machine that slows down slows both."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """Seconds of ours and of the other for the same work, one pair per round."""

    times: list[tuple[float, float]]

    @property
    def ours(self) -> float:
        return statistics.median(ours for ours, _ in self.times)

    @property
    def other(self) -> float:
        return statistics.median(other for _, other in self.times)

    @property
    def ratio(self) -> float:
        """Median of the rounds' ratios: how many times as fast ours is."""
        return statistics.median(other / ours for ours, other in self.times)

    @property
    def fastest(self) -> float:
        """Ratio of the fastest times, which other work on the machine disturbs least."""
        return min(other for _, other in self.times) / min(ours for ours, _ in self.times)


def alternate(ours: Callable[[], float], other: Callable[[], float], rounds: int) -> Pairs:
    """Run both in turn; each returns the seconds that it took."""
    ours(), other()  # warm up
    times = []
    for number in range(rounds):  # each goes first half the time
        if number % 2:
            times.append((ours(), other()))
        else:
            times.append((other(), ours())[::-1])
    return Pairs(times)
