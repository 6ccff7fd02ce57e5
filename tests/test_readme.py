"""The READMEs stay true: every command in them is run here, or in the test that is named here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import tinker_local
from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local import SamplingClient
from tinker_local.cli import app
from tinker_local.options import Options

ROOT = Path(__file__).resolve().parents[1]
README = "\n".join(
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "tinker_local/README.md", "convert/README.md", "models/README.md")
)
BLOCKS = re.findall(r"```(sh|console)\n(.*?)\n```", README, re.DOTALL)
COMMANDS = [line.removeprefix("$ ").partition("  #")[0] for _, text in BLOCKS for line in text.splitlines()]
RUN_HERE = [
    command for command in COMMANDS if re.match(r"tinker-local (sample|logprobs|models)\b", command)
]

ELSEWHERE = {
    "&& .venv/bin/tinker-local sample": "tests/test_readme.py::test_the_sample_command_ends_in_a_sentence",
    "&& .venv/bin/pytest": ".ci/run",
    "-DGGML_CUDA=on": None,  # needs the CUDA toolkit and the network
    "tinker checkpoint download": None,  # Tinker's own, needs its service
    "snapshots/b968826d": "tests/convert/test_models_directory.py",
    "convert my-finetune --type q8_0": "tests/convert/test_command.py::test_options",
    "bf16.gguf --type q4_k_m": "tests/convert/test_convert_checkpoint.py::test_another_type_of_a_gguf_file",
    "convert checkpoint.tar --base Qwen/Qwen3-8B": "tests/convert/test_command.py::test_bases_by_name",
    "convert my-peft-adapter": "tests/convert/test_command.py::test_adapters",
    "--merge --type q4_k_m": "tests/convert/test_adapter.py::test_merged_in_a_quantizers_type_and_in_parts",
    "--as tinker://": "tests/test_checkpoint.py::test_convert_as",
    "models tune": "tests/tuning/test_tune.py::test_kept_files_are_found_by_the_kind_of_work",
}
"""What is not run here, by a part of the command: the test that runs it on models that are small."""


def block(name: str) -> str:
    match = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)\n```", README, re.DOTALL)
    assert match, f"the README has no block named {name}"
    return match[1]


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block("example"), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 + 8
    assert all(line.split()[0] in ("stop", "length") for line in lines[:4])
    assert all(float(line.split()[0]) < 0 for line in lines[4:])


def test_the_batch_runs(capsys: pytest.CaptureFixture[str], client: SamplingClient) -> None:
    names: dict[str, Any] = {
        "tinker": tinker_local,
        "client": client,
        "prompt": tinker_local.ModelInput.from_ints([1000, 1001]),
        "params": tinker_local.SamplingParams(max_tokens=2),
    }
    exec(compile(block("batch"), "README.md", "exec"), names)
    assert set(capsys.readouterr().out.split()) <= {"stop", "length"}
    assert len(names["responses"]) == 100


def test_sampled_and_scored_bits_are_equal() -> None:
    exec(compile(block("bits"), "README.md", "exec"), {})


def test_the_sample_command_ends_in_a_sentence() -> None:
    command = block("sample").rpartition("&& ")[2]
    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/tinker-local"
    result = CliRunner().invoke(app, [*arguments, "--seed", "1"])
    assert result.exit_code == 0
    assert result.output.startswith(arguments[1])
    assert result.output.strip().endswith(".")
    assert len(result.output) > len(arguments[1]) + 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    """A directory with the files that the commands speak of."""
    place = tmp_path_factory.mktemp("place")
    (place / "notes.txt").write_text("Some notes.", encoding="utf-8")
    for name in ("downloaded.gguf", "my-model.gguf"):
        write_random_model(place / name)
    random_adapter(model_path).write(place / "adapter.gguf")
    return place


@pytest.mark.parametrize("command", [c for c in RUN_HERE if "models tune" not in c])
def test_commands_do_what_they_say(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(place / "models"))
    _, *arguments = shlex.split(command)
    if arguments[0] == "sample" and "--max-tokens" not in arguments:
        arguments += ["--max-tokens", "8"]
    result = CliRunner().invoke(app, arguments, input="y\n")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in RUN_HERE or "models tune" in c])
def test_other_commands_are_run_by_another_test(command: str) -> None:
    found = [test for part, test in ELSEWHERE.items() if part in command]
    assert found, f"no test runs {command}"
    for path, _, function in (test.partition("::") for test in found if test):
        assert f"def {function}" in (ROOT / path).read_text(encoding="utf-8") or not function


def test_links_lead_somewhere() -> None:
    for home in (ROOT, *(ROOT / name for name in ("tinker_local", "convert", "models", "tests"))):
        text = (home / "README.md").read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (home / target).exists(), f"{home.name}: {target}"


def test_help_has_an_example_that_parses() -> None:
    group: Any = typer.main.get_command(app)
    models = group.commands["models"]
    for command in (*(c for c in group.commands.values() if c is not models), *models.commands.values()):
        example = re.search(r"Example: tinker-local (.*)", command.help or "")
        assert example, f"{command.name} has no example"
        arguments = shlex.split(example[1])
        name = arguments.pop(0)
        if name == "models":
            name = arguments.pop(0)
        assert name == command.name
        command.make_context(name, arguments)


def test_every_option_is_described() -> None:
    described = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    assert described == set(Options.model_fields)


def test_ci_runs_the_test_command() -> None:
    assert block("test").startswith("python3 -m venv .venv && ")
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
