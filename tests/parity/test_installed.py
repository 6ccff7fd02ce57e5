"""Nothing is left out silently: where parity is asked for, all the oracles are there."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.parity

ORACLES = [
    *("accelerate", "lm_eval", "peft", "sentencepiece"),
    *("tiktoken", "tinker", "tinker_cookbook", "torch", "transformers"),
]


@pytest.mark.parametrize("package", ORACLES)
def test_an_oracle_is_installed(package: str) -> None:
    assert find_spec(package), f"no {package}; .ci/run shows how to install what parity is tested against"
