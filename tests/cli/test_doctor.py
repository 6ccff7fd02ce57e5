"""``tinker-local doctor`` finds what is wrong, and reports nothing else."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.random_model import write_random_model
from tinker_local.cli import app
from tinker_local.doctor import machine, software
from tinker_local.llama.build import Device, build, parse_system_info
from tinker_local.llama.devices import devices


def doctor(*arguments: str | Path, status: int = 0, **environment: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["doctor", "--json", *map(str, arguments)], env=environment)
    assert result.exit_code == status, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["ok"] == (status == 0)
    return found


def wrongs(found: dict[str, Any]) -> list[str]:
    assert all(finding["remedy"] for finding in found["findings"])
    return [finding["what"] for finding in found["findings"] if finding["is_wrong"]]


def test_a_sound_installation(tmp_path: Path) -> None:
    write_random_model(tmp_path / "tiny.gguf")
    found = doctor("--models-dir", tmp_path)
    assert wrongs(found) == []
    assert found["store"]["directory"] == str(tmp_path)
    assert found["store"]["models"] == 2, "the store's and the one of a package"
    assert found["model tried"]["state"] == "works"
    assert found["kernels"]["right"]
    assert found["kernels"]["attention"] == "ours"
    assert found["versions"]["llama-cpp-python"] == build().package
    assert set(found["devices"]) == set(devices())


def test_for_people() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    for part in ("llama-cpp-python", "built for CPU", "SIMD path", "directory", "nothing is wrong"):
        assert part in result.output


def test_damaged_and_unfinished_files(tmp_path: Path) -> None:
    whole = write_random_model(tmp_path / "sound.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-100])
    (tmp_path / "half-00001-of-00002.gguf").write_bytes(b"GGUF" + whole[4:5000])
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "link.gguf").symlink_to(tmp_path / "gone.gguf")
    left, at_work = tmp_path / ".old-x.part", tmp_path / "Org" / ".new-x.part"
    for directory in (left, at_work):
        directory.mkdir(parents=True)
        (directory / "model.gguf").write_bytes(bytes(1000))
    for path in (left / "model.gguf", left):
        os.utime(path, (time.time() - 7200,) * 2)
    found = doctor("--models-dir", tmp_path, status=1)
    said = "\n".join(wrongs(found))
    for name in ("cut", "half", "empty", "link"):
        assert f"{name} cannot be used" in said
    assert str(left) in said
    assert str(at_work) not in said
    assert "sound" not in said
    assert found["store"]["damaged"] == 4
    assert found["store"]["unfinished"] == 1
    for name in ("cut", "half", "empty", "link"):  # what it says to do works
        arguments = ["models", "remove", name, "--yes", "--models-dir", str(tmp_path)]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    left.joinpath("model.gguf").unlink()
    left.rmdir()
    assert wrongs(doctor("--models-dir", tmp_path)) == []


def test_a_model_that_fails_when_it_is_tried(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "tiny.gguf")
    assert doctor("--model", path)["model tried"]["state"] == "works"
    data = bytearray(path.read_bytes())
    data[-4096:] = b"\xff" * 4096  # NaN
    path.write_bytes(data)
    found = doctor("--model", path, status=1)
    assert any("was tried and failed" in what for what in wrongs(found))
    assert "no model is called 'nobody'" in wrongs(doctor("--model", "nobody", status=1))[0]


def test_no_model_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinker_local.store.model_store.find_in_distribution", lambda name: None)
    found = doctor("--models-dir", tmp_path, status=1)
    assert "default model SmolLM2-135M-Instruct is not there" in wrongs(found)[0]
    assert "[demo]" in found["findings"][0]["remedy"]
    write_random_model(tmp_path / "tiny.gguf")
    found = doctor("--models-dir", tmp_path)
    assert "is not there" in found["findings"][0]["what"], "another can be used: that is not wrong"


def test_settings_of_the_environment() -> None:
    found = doctor(TINKER_LOCAL_N_CTX="many", TINKER_LOCAL_N_THREAD="2", status=1)
    assert "n_ctx is 'many'" in wrongs(found)[0]
    [typo] = [finding for finding in found["findings"] if not finding["is_wrong"]]
    assert "TINKER_LOCAL_N_THREAD " in typo["what"]
    assert "TINKER_LOCAL_N_THREADS" in typo["remedy"]
    assert found["settings"]["TINKER_LOCAL_N_CTX"] == "many"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "nothing can be written" in wrongs(doctor("--models-dir", tmp_path, status=1))[0]


def test_builds_and_cpus_that_do_not_fit() -> None:
    here = machine.detect()
    made = build()
    made = replace(made, features={"CPU": {"AVX": "1", "AVX2": "1", "REPACK": "1"}})

    def found(*features: str, **changes: Any) -> list[tuple[bool, str]]:
        other = replace(here, **{"features": frozenset(features), **changes})
        findings = machine.diagnoses(other, made, [Device("CUDA0", "GPU", "", 0, 0)])
        return [(finding.is_wrong, finding.what) for finding in findings]

    assert found("AVX", "AVX2") == []
    assert found("AVX") == [(True, "llama.cpp was built for AVX2, which this CPU does not have")]
    [(is_wrong, said)] = found("AVX", "AVX2", "AVX512")
    assert not is_wrong
    assert "without AVX512" in said


def test_packages_that_are_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    required = [
        "numpy>=1.26",
        "llama-cpp-python>=999.1",
        "nothing-of-this-name>=1 ",
        'x>=9; extra == "dev"',
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: required)
    said = [finding.what for finding in software.diagnoses({})]
    assert len(said) == 2
    assert "llama-cpp-python is" in said[0]
    assert "not installed" in said[1]


def test_system_info_is_understood() -> None:
    text = "CUDA : ARCHS = 900 | USE_GRAPHS = 1 | CPU : SSE3 = 1 | AVX = 1 | "
    expected = {"CUDA": {"ARCHS": "900", "USE_GRAPHS": "1"}, "CPU": {"SSE3": "1", "AVX": "1"}}
    assert parse_system_info(text) == expected
