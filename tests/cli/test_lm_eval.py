"""``tinker-local lm-eval`` without lm-evaluation-harness installed; tests/parity has the harness."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from tinker_local.cli import app
from tinker_local.cli.lm_eval import with_model

OURS = ["--model", "tinker-local"]


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (["--tasks", "a"], ["run", *OURS, "--tasks", "a"]),
        (["run", "--tasks", "a"], ["run", *OURS, "--tasks", "a"]),
        (["--model_args", "model=x"], ["run", *OURS, "--model_args", "model=x"]),
        (["--model", "hf", "--tasks", "a"], ["run", "--model", "hf", "--tasks", "a"]),
        (["--model=hf"], ["run", "--model=hf"]),
        (["-M", "hf"], ["run", "-M", "hf"]),
        (["run", "--config", "a.yaml"], ["run", "--config", "a.yaml"]),
        (["ls", "tasks"], ["ls", "tasks"]),
        (["validate", "--tasks", "a"], ["validate", "--tasks", "a"]),
        (["-h"], ["-h"]),
        (["run", "-h"], ["run", "-h"]),
        ([], []),
    ],
)
def test_the_model_is_ours_unless_one_is_named(given: list[str], passed: list[str]) -> None:
    assert with_model(given) == passed


def test_without_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "tinker_local.lm_eval", raising=False)
    for name in [name for name in sys.modules if name.startswith("lm_eval.")]:
        monkeypatch.setitem(sys.modules, name, None)
    result = CliRunner().invoke(app, ["lm-eval", "--tasks", "arc_easy"])
    assert result.exit_code == 1
    assert "pip install 'tinker-local[eval]'" in result.output


def test_help() -> None:
    result = CliRunner().invoke(app, ["lm-eval", "--help"])
    assert result.exit_code == 0
    assert "lm-evaluation-harness" in result.output
    assert "[eval]" in result.output
