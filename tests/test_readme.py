"""The READMEs stay true: every command in them is run here, or in a test that is named here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import tinker_local
from convert import convert_checkpoint
from tests.long import few
from tests.random_adapter import random_adapter
from tests.random_checkpoints.adapters import random_factors, write_adapter
from tests.random_checkpoints.plain import write_llama
from tests.random_model import write_random_model
from tinker_local.cli import app
from tinker_local.options import Options

ROOT = Path(__file__).resolve().parents[1]
README = "\n".join(
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "convert/README.md", "models/README.md", "tinker_local/README.md")
)
BLOCKS = re.findall(r"^```(?:sh|console)\n(.*?)\n```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line for text in BLOCKS for line in text.splitlines()]
PLAIN = [line for line in COMMANDS if line.startswith("tinker-local ")]

ELSEWHERE = {
    "&& .venv/bin/tinker-local sample": "tests/test_readme.py::test_the_sample_command_ends_in_a_sentence",
    "&& .venv/bin/pytest": ".ci/run::",
    "-DGGML_CUDA=on": None,  # needs the CUDA toolkit and the network
    "tinker checkpoint download": None,  # Tinker's own, needs its service
    "pip install -e '.[serve]' tinker": None,  # needs the network
    "tinker-local serve": "tests/cli/test_serve.py::test_it_prints_what_to_paste_and_ends_by_a_signal",
    "tinker_chat_cli": "tests/parity/test_serve_cookbook.py::test_a_script_of_the_cookbook",
    "lm-eval": "tests/parity/test_lm_eval.py::test_the_readme_command",
    "models tune": "tests/tuning/test_tune.py::test_kept_files_are_found_by_the_kind_of_work",
}
"""What is not run here, by a part of the command: the test that runs it, on a small model."""

CONVERSIONS = {
    tuple(shlex.split(line, comments=True)[2:]): line
    for line in COMMANDS
    if line.startswith("$ tinker-local ") and not any(part in line for part in ELSEWHERE)
}


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


def test_the_batch_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = write_random_model(tmp_path / "tiny.gguf")
    names: dict[str, Any] = {
        "tinker": tinker_local,
        "client": tinker_local.ServiceClient(n_ctx=256).create_sampling_client(base_model=str(model)),
        "prompt": tinker_local.ModelInput.from_ints([100, 101]),
        "params": tinker_local.SamplingParams(max_tokens=2),
    }
    exec(compile(block("batch"), "README.md", "exec"), names)
    assert set(capsys.readouterr().out.split()) <= {"stop", "length"}
    assert len(names["responses"]) == 100


@pytest.mark.parametrize("size", few(1, ["small", "real"]))
def test_sampled_and_scored_bits_are_equal(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if size == "small":
        write_random_model(tmp_path / "SmolLM2-135M-Instruct.gguf")
        monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(tmp_path))
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


@pytest.mark.parametrize("command", PLAIN)
def test_commands_are_understood(
    command: str, tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("Some notes.", encoding="utf-8")
    if "downloaded.gguf" in command:
        (tmp_path / "downloaded.gguf").symlink_to(model_path)
    if "adapter.gguf" in command:
        random_adapter(model_path, rank=2, seed=1).write(tmp_path / "adapter.gguf")
    for name in ("prompts.jsonl", "texts.jsonl"):
        (tmp_path / name).write_text('{"prompt": "Once upon"}\n{"prompt": "a time"}\n', encoding="utf-8")
    _, *arguments = shlex.split(command)
    if arguments[0] == "bench":
        arguments += ["--seconds", "1"]
        write_random_model(tmp_path / "SmolLM2-135M-Instruct.gguf")  # as the default model, for speed
        monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(tmp_path))
    if arguments[0] == "sample":
        arguments += ["--max-tokens", "8"]  # the last one counts
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


def test_the_commands_of_conversion_and_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, on a tiny model of the name that they use."""
    monkeypatch.chdir(tmp_path)
    for name, place in (("HOME", ""), ("TINKER_LOCAL_MODELS_DIR", "models"), ("HF_HUB_CACHE", ".no")):
        monkeypatch.setenv(name, str(tmp_path / place))
    tensors = write_llama(Path("Qwen3-8B"), dtype="F32")
    snapshot = Path(".cache/huggingface/hub/models--Qwen--Qwen3-8B/snapshots/b968826d")
    for copy in (snapshot, Path("my-finetune")):
        shutil.copytree("Qwen3-8B", copy)
    for file in ("Qwen3-8B-q4_k_m.gguf", "models/Qwen/Qwen3-8B-f32.gguf", "my-model.gguf"):
        convert_checkpoint("Qwen3-8B", file, outtype="f32", verify=False)
    for directory in ("my-peft-adapter", "RUN_sampler_weights_final"):
        write_adapter(Path(directory), random_factors(tensors))
    with tarfile.open("checkpoint.tar", "w") as archive:
        archive.add("RUN_sampler_weights_final", "checkpoint")
    assert len(CONVERSIONS) > 10
    for arguments, command in CONVERSIONS.items():
        result = CliRunner().invoke(app, [*map(os.path.expanduser, arguments)], input="y\n")
        assert result.exit_code == 0, f"{command}\n{result.output}"
    made = ("checkpoint-lora", "checkpoint-q4_k_m", "Qwen/Qwen3-8B-bf16", "Qwen/Qwen3-8B-q4_k_m")
    for file in (*(f"models/{name}.gguf" for name in made), "my-lora.gguf", "my-finetune.gguf"):
        assert Path(file).is_file()
    assert Path("models/tinker/RUN/sampler_weights/final/weights.gguf").is_file()


def test_no_command_is_without_a_test() -> None:
    for command in COMMANDS:
        if command in PLAIN or tuple(shlex.split(command, comments=True)[2:]) in CONVERSIONS:
            continue
        found = [test for part, test in ELSEWHERE.items() if part in command]
        assert found, f"no test runs {command}"
        for path, _, function in (test.partition("::") for test in found if test):
            assert function in (ROOT / path).read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    for home in (ROOT, *(ROOT / name for name in ("tinker_local", "convert", "models", "tests"))):
        text = (home / "README.md").read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (home / target).exists(), f"{home.name}: {target}"


def test_help_has_examples_that_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("notes.txt", "prompts.jsonl"):
        Path(name).touch()
    group: Any = typer.main.get_command(app)
    models = group.commands["models"]
    for command in (*(c for c in group.commands.values() if c is not models), *models.commands.values()):
        examples = re.findall(r"^\W*(?:Example: )?tinker-local (.*)$", command.help or "", re.MULTILINE)
        assert examples, f"{command.name} has no example"
        for example in examples:
            arguments = shlex.split(example)
            name = arguments.pop(0)
            if name == "models":
                name = arguments.pop(0)
            assert name == command.name
            command.make_context(name, arguments)


def test_every_option_is_described() -> None:
    text = (ROOT / "tinker_local" / "README.md").read_text(encoding="utf-8")
    table = text.partition("<!-- options")[2].partition("<!-- /options -->")[0]
    described = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert described == set(Options.model_fields)


@pytest.mark.parametrize("name", ["sample", "test"])
def test_the_set_up_leaves_out_what_is_not_used(name: str) -> None:
    settings = re.search(r'CMAKE_ARGS="([^"]*)" \.venv/bin/pip install ', block(name))
    assert settings
    file = "tinker_local/llama/llama.cmake"
    (argument,) = shlex.split(settings[1].replace("$PWD", "/a directory"))
    assert argument == f"-DCMAKE_PROJECT_llama_cpp_INCLUDE=/a directory/{file}"
    assert (ROOT / file).is_file()


def test_ci_runs_the_test_command() -> None:
    assert block("test").startswith("python3 -m venv .venv && ")
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
