"""Adapters of every family, converted: log-probabilities as of transformers with the update merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.parity

try:
    from tests.parity.adapters import LAYOUTS, TOLERANCE, TRIALS, Base, measure
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


@pytest.fixture(scope="module", params=TRIALS, ids=str)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Base.of(request.param, tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_base_and_adapter(base: Any, layout: str, tmp_path: Path) -> None:
    found = measure(base, layout, tmp_path)
    for parity in (found.run_time, found.merged):
        assert parity.gap <= TOLERANCE
        assert parity.effect >= 100 * TOLERANCE
    assert found.same_tensors
    assert bool(found.refusal) == bool(base.trial.unfit)
    if base.trial.unfit:
        assert "--merge" in found.refusal
        assert any(name in found.refusal for name in base.trial.unfit)
