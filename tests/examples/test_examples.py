"""The examples run and give the right results."""

from __future__ import annotations

import json
import math
import runpy
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from tests.long import few
from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local import ModelInput, SamplingClient, ServiceClient, Tokenizer

HERE = Path(__file__).parent
TEXT = "The quick brown fox jumps over the lazy dog."


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(name: str, *arguments: str | Path) -> dict[str, Any]:
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        return runpy.run_path(str(HERE / f"{name}.py"))

    return run


@pytest.fixture(scope="module")
def adapter(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(model_path, size=0.02).write(tmp_path_factory.mktemp("lora") / "lora.gguf")


def test_every_example_is_tested() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    names = {path.stem for path in HERE.glob("*.py")} - {Path(__file__).stem}
    assert len(names) == 7
    assert all(f'run("{name}"' in tests for name in names)


def test_sample(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("sample", "Once upon a time")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len({tuple(s.tokens) for s in found["response"].sequences}) == 4
    assert all("Once upon a time" in line and float(line.split()[0]) < 0 for line in lines)


@pytest.mark.long
def test_best_of_n(run: Any, capsys: pytest.CaptureFixture[str], client: SamplingClient) -> None:
    found = run("best_of_n")
    assert "Paris" in capsys.readouterr().out.splitlines()[0]
    means = [fmean(sequence.logprobs) for sequence in found["sequences"]]
    assert fmean(found["best"].logprobs) == max(means) > min(means) == fmean(found["worst"].logprobs)
    prompt, tokens = found["prompt"].to_ints(), found["best"].tokens
    scored = client.compute_logprobs(ModelInput.from_ints(prompt + tokens), len(tokens)).result()
    assert fmean(filter(None, scored)) == pytest.approx(max(means), abs=0.15)  # as the README says of q4_1


LENGTHS = (100, 2, 300, 512, 513, 900)


@pytest.mark.parametrize("n_tokens", few(1, (2, 100)))
def test_perplexity(
    run: Any, tmp_path: Path, client: SamplingClient, tokenizer: Tokenizer, english: str, n_tokens: int
) -> None:
    text = tokenizer.decode(tokenizer.encode(english)[:n_tokens])
    assert_perplexity(run, tmp_path, client, text)


@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_perplexity_by_a_small_model(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, english: str, n_tokens: int
) -> None:
    small_model_of_the_same_name(tmp_path, monkeypatch)
    client = ServiceClient(n_ctx=1024).create_sampling_client(base_model="SmolLM2-135M-Instruct")
    assert client.get_tokenizer().vocab_size == 400
    assert_perplexity(run, tmp_path, client, english[:n_tokens])


def small_model_of_the_same_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a random model that an example finds under the real one's name."""
    monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(home))
    return write_random_model(home / "SmolLM2-135M-Instruct.gguf")


def assert_perplexity(run: Any, directory: Path, client: SamplingClient, text: str) -> None:
    (directory / "text.txt").write_text(text, encoding="utf-8")
    tokens = client.get_tokenizer().encode(text)
    found = run("perplexity", directory / "text.txt")
    assert len(found["scores"]) == len(tokens) - 1
    whole = client.compute_logprobs(ModelInput.from_ints(tokens)).result()
    expected = math.exp(-fmean(p for p in whole if p is not None))
    assert found["perplexity"] == pytest.approx(expected, rel=0.05)  # windows know a little less


def test_compare_checkpoints(run: Any, adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("compare_checkpoints", adapter, TEXT)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(found["tokens"]) - 1 + 1
    changes = [float(line.split()[0]) for line in lines]
    assert changes[:-1] == sorted(changes[:-1])
    assert changes[-1] == pytest.approx(sum(changes[:-1]), abs=0.01)
    assert any(abs(change) > 0.01 for change in changes)


def test_multiple_choice(run: Any) -> None:
    found = run("multiple_choice")
    assert found["n_right"] >= 4  # chance is 1.25


def test_importance_weights(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model_of_the_same_name(tmp_path, monkeypatch)
    adapter = random_adapter(model, size=0.02).write(tmp_path / "lora.gguf")
    same = run("importance_weights")
    assert (same["p_old"] == same["p_new"]).all()
    assert same["effective"] == 8
    other = run("importance_weights", adapter)
    assert (other["p_old"] == same["p_old"]).all()
    assert (other["p_new"] != other["p_old"]).all()
    assert 1 <= other["effective"] < 8


@pytest.mark.long
def test_rollouts(run: Any, tmp_path: Path) -> None:
    run("rollouts", tmp_path / "rollouts.jsonl")
    groups = defaultdict(list)
    for line in (tmp_path / "rollouts.jsonl").read_text(encoding="utf-8").splitlines():
        rollout = json.loads(line)
        assert len(rollout["tokens"]) == len(rollout["logprobs"]) > 0
        groups[rollout["question"]].append(rollout)
    assert 2 <= len(groups) <= 3  # a group of equal rewards is left out
    for group in groups.values():
        advantages = [rollout["advantage"] for rollout in group]
        assert len(group) == 8
        assert sum(advantages) == pytest.approx(0, abs=1e-9)
        assert fmean(a * a for a in advantages) == pytest.approx(1)
        best = max(group, key=lambda rollout: rollout["reward"])
        assert best["advantage"] == max(advantages)
