"""``tinker-local convert`` and ``python -m convert``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from convert.adapters.base_lookup import find_base
from convert.cli import _parse_size
from convert.errors import ConversionError
from tests.convert.expected import read_gguf
from tests.long import few
from tests.random_checkpoints.adapters import random_factors, write_adapter
from tests.random_checkpoints.plain import write_llama, write_safetensors
from tinker_local.cli import app


def run(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(app, ["convert", *map(str, arguments)], env=environment)


def test_the_last_line_says_what_was_made(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny")
    result = run(tmp_path / "tiny", "--type", "Q8_0", TINKER_LOCAL_MODELS_DIR=str(tmp_path / "models"))
    path = tmp_path / "models" / "tiny-q8_0.gguf"
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{path}  {path.stat().st_size / 1000:.1f} kB  q8_0  ")
    assert result.stdout.endswith(" s\n")
    assert result.stderr == ""


def test_options(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny", dtype="F16")
    given = ["--name", "Org/Other", "--type", "auto", "--no-verify", "--split-size", "0.1MB"]
    result = run(tmp_path / "tiny", *given, TINKER_LOCAL_MODELS_DIR=str(tmp_path / "models"))
    assert result.exit_code == 0, result.output
    parts = sorted((tmp_path / "models" / "Org").glob("*.gguf"))
    assert parts[0].name == f"Other-f16-00001-of-{len(parts):05d}.gguf"
    assert len(parts) > 1
    assert f"{sum(part.stat().st_size for part in parts) / 1000:.1f} kB" in result.stdout
    assert read_gguf(parts[0])[0]["general.name"] == "Other"


def test_errors_are_one_line(tmp_path: Path) -> None:
    tensors = write_llama(tmp_path / "tiny")
    write_safetensors(tmp_path / "tiny" / "model.safetensors", {"x": tensors["lm_head.weight"]})
    cases = [
        ([tmp_path / "none"], "there is no"),
        ([tmp_path / "tiny", "-o", tmp_path / "x.gguf"], "which the model needs"),
        ([tmp_path / "tiny", "--type", "q9"], "the type 'q9' is not known; there are auto, f32, bf16"),
        ([tmp_path / "tiny", "--name", "../x"], "cannot be a model's name"),
    ]
    for arguments, said in cases:
        result = run(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert said in result.stderr
    assert run(tmp_path / "tiny", "--split-size", "much").exit_code == 2


def test_sizes() -> None:
    assert _parse_size("5GB") == _parse_size("5 G") == 5 * 10**9
    assert _parse_size("1.5m") == 1_500_000
    assert _parse_size("700") == 700


def test_the_module_is_the_command(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny")
    command = [sys.executable, "-m", "convert", str(tmp_path / "tiny"), "-o", str(tmp_path / "x.gguf")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'x.gguf'}  ")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1
    assert (
        again.stderr == f"error: {tmp_path / 'x.gguf'} is there already; --force (force=True) replaces it\n"
    )


def test_importing_the_command_imports_no_converter() -> None:
    script = "import sys, tinker_local.cli; print({'gguf', 'tokenizers', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("outtype", few(1, ["q4_0", "f32"]))
def test_a_bar_on_a_terminal(large: Path, tmp_path: Path, outtype: str) -> None:
    import pty

    leader, follower = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "convert",
        str(large),
        "-o",
        str(tmp_path / "x.gguf"),
        "--type",
        outtype,
    ]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [*command, "--no-verify"], stdout=subprocess.PIPE, stderr=follower, text=True, env=environment
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            data = os.read(leader, 4096)
        except OSError:  # how Linux says that the other end was closed
            break
        if not data:
            break
        shown += data
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.startswith(f"{tmp_path / 'x.gguf'}  ")
    text = shown.decode()
    assert "zeros" in text
    assert "MB" in text
    assert "0:00:0" in text


def test_adapters(tmp_path: Path) -> None:
    tensors = write_llama(tmp_path / "tiny", dtype="F32", tie_word_embeddings=True)
    lora = write_adapter(tmp_path / "lora", random_factors(tensors), base_model_name_or_path="Org/Tiny")
    home = {"TINKER_LOCAL_MODELS_DIR": str(tmp_path / "models"), "HF_HUB_CACHE": str(tmp_path / "cache")}
    asked = run(lora, **home)
    assert asked.exit_code == 1
    assert "no model is called 'Org/Tiny'" in asked.stderr
    assert run(tmp_path / "tiny", "--name", "Org/Tiny", "--type", "f32", **home).exit_code == 0
    result = run(lora, **home)  # on the base that it names
    path = tmp_path / "models" / "lora-lora.gguf"
    assert result.exit_code == 0, result.output
    made, untied = result.stdout.splitlines()
    assert made.startswith(f"{path}  {path.stat().st_size / 1000:.1f} kB  f32  ")
    assert untied.startswith(
        f"{tmp_path / 'models' / 'Org' / 'Tiny-untied-f32.gguf'}  the base with an output"
    )
    merged = run(lora, "--base", tmp_path / "tiny", "--merge", "--type", "q8_0", "--name", "Mine", **home)
    assert merged.stdout.startswith(f"{tmp_path / 'models' / 'Mine-q8_0.gguf'}  ")
    for arguments, said in (
        ([tmp_path / "tiny", "--merge"], "is no adapter"),
        ([lora, "--base", "org/tiny", "--merge"], "the base org/tiny is no path"),
        ([lora, "--compare"], "--compare is for models"),
        ([lora, "--type", "q4_0"], "stored as one of f32, f16, bf16"),
    ):
        refused = run(*arguments, **home)
        assert refused.exit_code == 1
        assert said in refused.stderr


def test_bases_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, cache = tmp_path / "models", tmp_path / "cache"
    monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(home))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    (home / "Org").mkdir(parents=True)
    for name in ("Org/Tiny-q4_0.gguf", "Org/Tiny-bf16.gguf"):
        (home / name).touch()
    for revision in ("aaa", "bbb"):
        snapshot = cache / "models--Org--Tiny" / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").touch()
    (cache / "models--Org--Tiny" / "refs").mkdir()
    (cache / "models--Org--Tiny" / "refs" / "main").write_text("bbb")
    assert find_base("org/tiny") == find_base("Tiny") == home / "Org" / "Tiny-bf16.gguf"
    assert find_base("Tiny-q4_0") == home / "Org" / "Tiny-q4_0.gguf"
    assert find_base("Org/Tiny", needs_weights=True) == snapshot
    assert find_base(str(snapshot)) == snapshot
    with pytest.raises(ConversionError, match=r"no GGUF file in .*give its directory or its GGUF file"):
        find_base("Other")
    with pytest.raises(
        ConversionError, match=r"is no path and has no snapshot .*merging needs the weights"
    ):
        find_base("Tiny", needs_weights=True)
