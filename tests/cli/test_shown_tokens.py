"""Each place where the command line writes tokens: also parts of characters stay apart."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.random_model import Shape, write_random_model
from tinker_local.cli import app

TRAIN = "🚂\u00a0ab"  # four bytes of a character, two of an invisible one, and a merge
BYTES = ["\\xf0", "\\x9f", "\\x9a", "\\x82", "\\xc2", "\\xa0", "ab"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", shape=Shape(n_layer=1))


def run(command: str, model: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, [command, *arguments, "--model", str(model), "--n-ctx", "256"])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_logprobs_in_a_pipe(tiny: Path) -> None:
    *lines, _ = run("logprobs", tiny, TRAIN, "--top-k", "3").splitlines()
    heads = [line.partition("   <- ")[0].split() for line in lines]
    assert [head[2] for head in heads] == [f"'{text}'" for text in BYTES]
    names = {int(head[1]): head[2] for head in heads}
    for line in lines[1:]:
        others = re.findall(
            r"(\d+) ('(?:[^'\\]|\\.)*'|\"[^\"]*\") (-\d+\.\d{4})", line.partition("   <- ")[2]
        )
        assert len(others) == 3, "each alternative has an id, a text and a log-probability"
        for token, text, _ in others:
            assert names.setdefault(int(token), text) == text
    assert len(set(names.values())) == len(names), "tokens that differ look different"


def test_logprobs_as_json(tiny: Path) -> None:
    assert json.loads(run("logprobs", tiny, TRAIN, "--json"))["texts"] == BYTES


def test_rows_of_a_file(tiny: Path, tmp_path: Path) -> None:
    asked = tmp_path / "in.jsonl"
    asked.write_text(json.dumps({"prompt": TRAIN}) + "\n", encoding="utf-8")
    assert json.loads(run("logprobs", tiny, "--input", str(asked)))["texts"] == BYTES


def test_sampled_tokens(tiny: Path) -> None:
    arguments = ("a", "--logprobs", "--seed", "1", "--max-tokens", "60", "--temperature", "3")
    lines = re.findall(r"^ +-\d+\.\d{4} +(\d+)  (.*)$", run("sample", tiny, *arguments), flags=re.MULTILINE)
    names = dict(lines)
    assert len(lines) > 20
    assert len(set(names.values())) == len(names)
    assert any(re.fullmatch(r"'\\x[89a-f].'", name) for name in names.values())
