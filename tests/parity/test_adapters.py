"""Adapters of every family, converted: log-probabilities as of transformers with the update merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.parity

try:
    from tests.parity.adapters import LAYOUTS, TOLERANCE, TRIALS, measure
except ImportError as error:  # torch and transformers are an extra
    LAYOUTS, TOLERANCE, TRIALS = {}, 0, ()
    MISSING = str(error)
else:
    MISSING = ""


def test_every_family_is_tried() -> None:
    if MISSING:
        pytest.skip(MISSING)
    from tests.parity.families import all_cases

    assert {str(trial).partition(",")[0] for trial in TRIALS} == {case.family for case in all_cases()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_base_and_adapter(trial: Any, layout: str, tmp_path: Path) -> None:
    found = measure(trial, layout, tmp_path)
    for parity in (found.run_time, found.merged):
        assert parity.gap <= TOLERANCE
        assert parity.effect >= 100 * TOLERANCE
    assert found.same_tensors
    assert bool(found.refusal) == bool(trial.unfit)
    if trial.unfit:
        assert "--merge" in found.refusal
        assert any(name in found.refusal for name in trial.unfit)
