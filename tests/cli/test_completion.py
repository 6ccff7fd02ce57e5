"""Shell completion of commands, options and names of models."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local.cli import app


@pytest.fixture
def home(tmp_path: Path) -> Path:
    model = write_random_model(tmp_path / "Mine-f32.gguf")
    random_adapter(model).write(tmp_path / "Other.gguf")
    return tmp_path


def complete(home: Path, line: str) -> list[str]:
    """Return the completions of a line, asked for as bash does."""
    words = line.split(" ")
    environment = {
        "_TINKER_LOCAL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "TINKER_LOCAL_MODELS_DIR": str(home),
    }
    return CliRunner().invoke(app, [], prog_name="tinker-local", env=environment).stdout.split()


def test_names_of_models_and_of_adapters(home: Path) -> None:
    assert complete(home, "tinker-local sample --model Mi") == ["Mine-f32", "Mine"]
    assert "SmolLM2-135M-Instruct" in complete(home, "tinker-local sample --model Smol")
    assert complete(home, "tinker-local logprobs --adapter O") == ["Other"]
    assert complete(home, "tinker-local sample --model O") == []
    assert complete(home, "tinker-local models show O") == ["Other"]
    assert complete(home, "tinker-local models tune Mine-") == ["Mine-f32"]


def test_commands_and_options(home: Path) -> None:
    assert "models" in complete(home, "tinker-local mo")
    assert "--temperature" in complete(home, "tinker-local sample --temp")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_bash_is_one() -> None:
    environment = {"_TINKER_LOCAL_COMPLETE": "source_bash"}
    script = CliRunner().invoke(app, [], prog_name="tinker-local", env=environment)
    assert script.exit_code == 0, script.output
    assert "complete -o default -F" in script.stdout
    subprocess.run(["bash", "-n"], input=script.stdout, text=True, check=True, env=dict(os.environ))
