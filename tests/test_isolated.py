"""Files from strangers are tried in a process of their own."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.fuzz.gguf_parts import take_apart
from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local import BadRequestError, isolated
from tinker_local.cli import app
from tinker_local.isolated import Trial, try_isolated

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "model.gguf")


def test_a_sound_model_and_adapter(model: Path, tmp_path: Path) -> None:
    assert try_isolated(model) == Trial(n_vocab=400, n_decoded=20)
    adapter = random_adapter(model).write(tmp_path / "adapter.gguf")
    assert try_isolated(adapter, model).n_decoded == 20


def test_what_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(model.read_bytes()[:-1000])
    with pytest.raises(BadRequestError, match="cut off") as raised:
        try_isolated(path)
    assert str(path) in str(raised.value)
    with pytest.raises(BadRequestError, match="give its base model"):
        try_isolated(random_adapter(model).write(tmp_path / "adapter.gguf"))


def test_weights_that_are_no_numbers(model: Path, tmp_path: Path) -> None:
    parts = take_apart(model.read_bytes())
    parts.tensors[3].data = struct.pack("<f", float("nan")) + parts.tensors[3].data[4:]
    path = tmp_path / "nan.gguf"
    path.write_bytes(parts.pack())
    with pytest.raises(BadRequestError, match=r"invalid data|not finite"):
        try_isolated(path)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        (f"os.kill(os.getpid(), {int(signal.SIGABRT)})", "ended the process by SIGABRT"),
        ("os._exit(3)", "status 3"),
        ("time.sleep(60)", "could not be checked within 3 s"),
        ("raise RuntimeError('a fault')", "a fault"),
    ],
)
def test_what_a_file_may_do(
    deed: str, said: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deed is done where the file would be tried, by a module that stands in the way of another."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "class Deed:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'tinker_local.tokenizer':\n"
        f"            {deed}\n"
        "sys.meta_path.insert(0, Deed())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BadRequestError, match=said):
        try_isolated(model, seconds=3 if "sleep" in deed else isolated.SECONDS)


def test_more_memory_than_it_may_have(model: Path) -> None:
    with pytest.raises(BadRequestError, match=str(model)):
        try_isolated(model, memory=0)


def test_the_command(model: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    result = run(app, ["models", "verify", "--isolated", str(model)])
    assert result.exit_code == 0
    assert "ok; 400 tokens in the vocabulary, 20 decoded" in result.output
    adapter = random_adapter(model).write(tmp_path / "adapter.gguf")
    result = run(app, ["models", "verify", "--isolated", str(adapter), "--base", str(model)])
    assert result.exit_code == 0
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[:500])
    result = run(app, ["models", "verify", "--isolated", str(broken)])
    assert result.exit_code == 1
    assert "broken GGUF file" in result.output
    assert run(app, ["models", "verify", "--isolated"]).exit_code == 2
