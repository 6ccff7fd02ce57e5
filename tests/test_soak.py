"""Short versions of ``python -m tests.soak`` and ``python -m tests.fuzz.kills``, and shorter ones."""

from __future__ import annotations

import sys

import pytest

from tests.fuzz.kills import JOBS, kills
from tests.soak import soak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux tells it")


def test_a_moment_of_the_soak() -> None:
    tally = soak(1.0, seed=1, n_threads=2)
    assert not tally.problems, "\n".join(tally.lines())
    assert tally.counts["sampled"] > 0, tally.lines()


@pytest.mark.long
def test_soak() -> None:
    tally = soak(20, seed=1)
    assert not tally.problems, "\n".join(tally.lines())
    for name in ("sampled", "scored", "cancelled", "bad requests", "clients"):
        assert tally.counts[name] > 0, tally.lines()


@pytest.mark.long
def test_kills() -> None:
    report = kills(len(JOBS), seed=1, jobs=[*JOBS])
    assert not report.problems, "\n".join(report.lines())
    assert report.outcomes.total() == len(JOBS)
