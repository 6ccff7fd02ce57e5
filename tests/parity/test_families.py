"""Every family as a random checkpoint: the GGUF file computes what transformers computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.parity

try:
    from tests.parity.families import all_cases, measure
except ImportError as error:  # torch and transformers are an extra
    CASES: list[Any] = []
    MISSING = str(error)
else:
    CASES, MISSING = all_cases(), ""


def test_there_are_cases() -> None:
    if MISSING:
        pytest.skip(MISSING)
    assert {case.family for case in CASES} >= {
        "llama",
        "qwen",
        "gemma",
        "phi3",
        "olmo2",
        "gpt2",
        "nemotron_h",
        "qwen3moe",
        "qwen35",
        "gptoss",
        "deepseek",
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_log_probabilities_and_greedy_text(case: Any, tmp_path: Path) -> None:
    found = measure(case, tmp_path)
    assert found.largest <= case.tolerance, case.reason
    assert found.same_greedy or not case.same_greedy
