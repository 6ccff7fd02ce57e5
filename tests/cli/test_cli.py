"""The command line, run in this process; where a terminal matters, in a pseudo-terminal."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.random_adapter import random_adapter
from tests.random_checkpoints.adapters import write_adapter
from tinker_local import ModelInput, SamplingClient, Tokenizer
from tinker_local.cli import app

TEXT = "The capital of France is"
SHAPES = (("A", (4, 576)), ("B", (576, 4)))


def run(*arguments: str, text: str | None = None, **environment: str) -> Result:
    return CliRunner().invoke(app, list(arguments), input=text, env=environment)


def sample(*arguments: str, **environment: str) -> Result:
    return run("sample", TEXT, "--n-ctx", "256", "--max-tokens", "6", *arguments, **environment)


def test_sample_continues_the_prompt() -> None:
    result = sample("--temperature", "0")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(TEXT + " ")
    assert "Paris" in result.output


def test_sample_json(client: SamplingClient) -> None:
    result = sample("--seed", "3", "--num-samples", "2", "--json", "--top-k", "20", "--top-p", "0.9")
    answer = json.loads(result.output)
    assert answer == json.loads(
        sample("--seed", "3", "--num-samples", "2", "--json", "--top-k", "20", "--top-p", "0.9").output
    )
    assert answer["prompt_tokens"] == client.get_tokenizer().encode(TEXT)
    assert len(answer["sequences"]) == 2
    for sequence in answer["sequences"]:
        assert len(sequence["tokens"]) == len(sequence["logprobs"])
        assert sequence["stop_reason"] in ("stop", "length")
        assert client.get_tokenizer().decode(sequence["tokens"]).startswith(sequence["text"])


def test_sample_several_with_logprobs_and_stop() -> None:
    result = sample("--num-samples", "2", "--logprobs", "--temperature", "0", "--stop", "Paris")
    assert result.output.count(TEXT) == 2
    assert result.output.count("' Paris'") == 2
    assert "[2]" in result.output


def test_sample_chat() -> None:
    result = sample("--chat", "--temperature", "0")
    assert result.exit_code == 0
    assert not result.output.startswith(TEXT)
    assert "<|im" not in result.output


def test_logprobs(client: SamplingClient, tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokens = tokenizer.encode(TEXT)
    expected = client.compute_logprobs(ModelInput.from_ints(tokens)).result()
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    texts = ([TEXT], ["--file", str(tmp_path / "text.txt")], ["--file", "-"])
    flags = ("--top-k", "--topk-prompt-logprobs", "--top-k")
    answers = [
        json.loads(run("logprobs", *text, "--json", flag, "2", text=TEXT).output)
        for text, flag in zip(texts, flags, strict=True)
    ]
    assert answers[0] == answers[1] == answers[2]
    answer = answers[0]
    assert answer["tokens"] == tokens
    assert answer["logprobs"] == expected
    assert answer["sum"] == pytest.approx(sum(p for p in expected if p is not None))
    assert answer["perplexity"] == pytest.approx(math.exp(-answer["sum"] / (len(tokens) - 1)))
    assert [entry and len(entry) for entry in answer["topk_logprobs"]] == [None] + [2] * (len(tokens) - 1)


def test_logprobs_as_text() -> None:
    result = run("logprobs", TEXT, "--top-k", "2")
    lines = result.output.splitlines()
    assert len(lines) == 6
    assert lines[1].split()[2:] == ["'", "capital'", "<-", *lines[1].split()[5:]]
    assert "perplexity" in lines[-1]


def test_logprobs_in_colour() -> None:
    text = "Paris is the capital of aardvarks \x1b[31m"
    result = run("logprobs", text, "--color", TERM="xterm-256color", COLORTERM="truecolor")
    assert result.exit_code == 0, result.output
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
    assert "48;2;" in result.stdout
    assert "\\x1b" in plain
    assert "\x1b" not in plain
    assert re.search(r"\d  ·a", plain), "a surprising token, in the table"
    assert "perplexity" in plain
    assert run("logprobs", TEXT, "--no-color").output == run("logprobs", TEXT).output
    assert "\x1b" not in run("logprobs", TEXT).output


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_logprobs_on_a_terminal(no_color: str) -> None:
    import pty

    leader, follower = pty.openpty()
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "tinker_local.cli", "logprobs", TEXT]
    process = subprocess.Popen(command, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    text = b""
    with suppress(OSError):  # how Linux says that the other end was closed
        while data := os.read(leader, 4096):
            text += data
    assert process.wait(timeout=60) == 0
    assert (b"48;5;" in text) == (not no_color)
    assert (b"\x1b" in text) == (not no_color)
    assert b"perplexity" in text


def test_logprobs_page(tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    result = run("logprobs", TEXT, "--html", str(place))
    assert result.exit_code == 0, result.output
    assert f"{place}: 5 tokens, log-probability " in result.output
    page = place.read_text(encoding="utf-8")
    assert page.count("data-look=") == 5
    assert "rank over 10" in page or "rank 1" in page
    missing = run("logprobs", TEXT, "--html", str(tmp_path / "none" / "page.html"))
    assert missing.exit_code == 1
    assert "there is no directory" in missing.output
    both = run("logprobs", TEXT, "--html", str(place), "--json", "--top-k", "1")
    assert json.loads(both.output)["count"] == 4


def test_logprobs_of_two_models(model_path: Path, tmp_path: Path) -> None:
    adapter = random_adapter(model_path).write(tmp_path / "lora.gguf")
    arguments = ["logprobs", TEXT, "--model", str(model_path), "--compare-adapter", str(adapter)]
    answer = json.loads(run(*arguments, "--json").output)
    first, second = answer["logprobs"], answer["compare"]["logprobs"]
    assert answer["difference"][0] is None
    assert answer["difference"][1:] == [b - a for a, b in zip(first[1:], second[1:], strict=True)]
    assert any(answer["difference"][1:]), "the adapter changes something"
    assert answer["compare"]["model"] == f"{model_path} + {adapter}"
    lines = run(*arguments).output.splitlines()
    assert len(lines) == 5 + 2
    assert [float(x) for x in lines[1].split()[:2]] == [
        pytest.approx(x[1], abs=1e-4) for x in (first, second)
    ]
    back = ["logprobs", TEXT, "--adapter", str(adapter), "--model", str(model_path), "--json"]
    swapped = json.loads(run(*back, "--compare", str(model_path)).output)
    assert (swapped["model"], swapped["compare"]["model"]) == (answer["compare"]["model"], answer["model"])
    place = tmp_path / "page.html"
    assert run(*arguments, "--html", str(place)).exit_code == 0
    assert place.read_text(encoding="utf-8").count("data-look=") == 3 * 5
    assert "B − A" in re.sub(r"\x1b\[[0-9;]*m", "", run(*arguments, "--color", TERM="xterm").output)


def test_models() -> None:
    result = run("models")
    assert result.exit_code == 0
    assert "SmolLM2-135M-Instruct" in result.output
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in result.output
    assert "98.4 MB" in result.output


def test_environment_and_options_reach_the_model(model_path: Path) -> None:
    result = run("sample", TEXT, "--max-tokens", "100", TINKER_LOCAL_N_CTX="64")
    assert result.exit_code == 1
    assert "holds 64" in result.output
    result = run("sample", TEXT, "--max-tokens", "100", "--n-ctx", "32", TINKER_LOCAL_N_CTX="64")
    assert "holds 32" in result.output
    options = ["--kv-type", "f32", "--no-flash-attn", "--n-threads", "1", "--logprobs-mode", "raw"]
    assert sample(*options, "--model", str(model_path)).exit_code == 0
    assert sample("--base-model", str(model_path)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", TEXT, "--temperature", "-1"], "temperature is -1"),
        (["sample", TEXT, "--model", "nobody"], "no model is called 'nobody'"),
        (["sample", TEXT, "--model", "nothing.gguf"], "no file nothing.gguf"),
        (["sample", ""], "prompt is empty"),
        (["logprobs", ""], "prompt is empty"),
        (["logprobs", TEXT, "--top-k", "-1"], "topk_prompt_logprobs is -1"),
        (["convert", "somewhere"], "there is no somewhere"),
    ],
)
def test_errors_are_one_line_and_status_1(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert said in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [["logprobs"], ["logprobs", "x", "--file", "y"], ["sample"]])
def test_misuse_is_status_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_missing_default_model_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinker_local.store.model_store.find_in_distribution", lambda name: None)
    result = run("sample", TEXT)
    assert result.exit_code == 1
    assert "pip install" in result.output
    assert "[demo]" in result.output
    assert "not installed" in run("models").output


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("num_samples", [1, 2])
def test_prints_as_it_goes_on_a_terminal(num_samples: int) -> None:
    import pty

    leader, follower = pty.openpty()
    command = ["-m", "tinker_local.cli", "sample", TEXT, "--max-tokens", "24", "--temperature", "0"]
    command += ["--num-samples", str(num_samples)]
    process = subprocess.Popen([sys.executable, *command], stdout=follower, stderr=follower)
    os.close(follower)
    pieces: list[str] = []
    while True:
        try:
            data = os.read(leader, 4096)
        except OSError:  # how Linux says that the other end was closed
            break
        if not data:
            break
        pieces.append(data.decode())
    assert process.wait(timeout=60) == 0
    assert len(pieces) > 5, "everything came at once"
    text = "".join(pieces)
    assert text.count(TEXT) == num_samples
    assert text.count("Paris") >= num_samples


def test_an_adapter_of_the_embedded_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    start = "base_model.model.model.layers.3.self_attn.o_proj.lora_"
    factors = {f"{start}{which}.weight": rng.standard_normal(shape, np.float32) for which, shape in SHAPES}
    lora = write_adapter(
        tmp_path / "lora", factors, base_model_name_or_path="HuggingFaceTB/SmolLM2-135M-Instruct"
    )
    home = {"TINKER_LOCAL_MODELS_DIR": str(tmp_path / "models")}
    made = run("convert", str(lora), **home)
    assert made.exit_code == 0, made.output
    plain, changed = (sample("--seed", "1", *more, **home) for more in ((), ("--adapter", "lora-lora")))
    assert changed.exit_code == 0, changed.output
    assert changed.output != plain.output
    unknown = run("convert", str(lora), "--base", "Qwen/Qwen3-8B", **home)
    assert unknown.exit_code == 1
    assert "hf download Qwen/Qwen3-8B" in unknown.stderr
    added = run("models", "add", str(lora), "--name", "tinker://run/sampler_weights/a", **home)
    assert added.exit_code == 0, added.output
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(lora, "b")
    run("models", "add", str(tmp_path / "b.tar"), "--name", "tinker://run/sampler_weights/b", **home)
    listed = run("models", **home).output
    assert "base         named in the archive" in listed
    assert listed.count("base         HuggingFaceTB/SmolLM2-135M-Instruct") == 2


def test_convert_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "convert", "x"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: there is no x\n"
