"""Interrupted, disk full, there already: nothing that looks finished is left, nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convert import ConversionError, convert_checkpoint
from convert.files.parts import existing, parts_of
from convert.files.publishing import check_space, publishing
from convert.files.sizes import format_bytes
from tests.long import few
from tests.random_checkpoints.plain import write_llama


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("outtype", ["bf16", "q4_0"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError, MemoryError])
def test_whatever_stops_it(tmp_path: Path, error: type[BaseException], outtype: str) -> None:
    write_llama(tmp_path / "tiny")
    n_calls = 0

    def stop(done: int, total: int) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 7:
            assert any(name.startswith(".x-") for name in names(tmp_path / "new" / "place"))
            raise error

    with pytest.raises(error):
        convert_checkpoint(
            tmp_path / "tiny", tmp_path / "new" / "place" / "x.gguf", outtype=outtype, on_progress=stop
        )
    assert n_calls == 7
    assert names(tmp_path) == ["tiny"]


@pytest.mark.parametrize(
    ("number", "status", "outtype"),
    few(
        3,
        [
            (signal.SIGINT, 130, "q4_k_m"),
            (signal.SIGTERM, 143, "f32"),
            (signal.SIGKILL, -9, "f32"),
            (signal.SIGINT, 130, "f32"),
            (signal.SIGTERM, 143, "q4_k_m"),
            (signal.SIGKILL, -9, "q4_k_m"),
        ],
    ),
)
def test_signals(large: Path, tmp_path: Path, number: int, status: int, outtype: str) -> None:
    command = [sys.executable, "-m", "convert", str(large), "-o", str(tmp_path / "x.gguf")]
    process = subprocess.Popen(
        [*command, "--type", outtype, "--no-verify"], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: any(tmp_path.glob(".x-*.part/x.gguf")))
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in said
    left = names(tmp_path)
    assert "x.gguf" not in left
    assert left == [] or number == signal.SIGKILL


def test_what_stops_it_while_llama_cpp_quantizes(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny")
    reached: list[float] = []

    def stop(done: int, total: int) -> None:
        if done > 0.6 * total:
            reached.append(done / total)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf", outtype="q4_0", on_progress=stop)
    assert len(reached) == 1
    assert names(tmp_path) == ["tiny"]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_too_little_room_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_llama(tmp_path / "tiny")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 150_000))
    seen: list[Any] = []
    for outtype in ("f32", "q4_0"):
        with pytest.raises(ConversionError, match=r"has 150\.0 kB free, and \d+\.\d kB are needed"):
            convert_checkpoint(
                tmp_path / "tiny",
                tmp_path / "x.gguf",
                outtype=outtype,
                on_progress=lambda *n: seen.append(n),
            )
    assert not seen
    assert names(tmp_path) == ["tiny"]
    convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf", outtype="q8_0")


@pytest.mark.parametrize("failing", ["sync", "write"])
def test_a_disk_that_is_full_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_llama(tmp_path / "tiny")
    (tmp_path / "x.gguf").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if failing == "sync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr("convert.gguf.output._write_tensor", fail)
    with pytest.raises(ConversionError, match=f"the disk of {tmp_path} is full"):
        convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf", force=True)
    assert names(tmp_path) == ["tiny", "x.gguf"]
    assert (tmp_path / "x.gguf").read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_write_that_fails(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny")
    script = (
        "import resource, signal, sys; from convert import *;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "convert_checkpoint(sys.argv[1], sys.argv[2], verify=False)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "tiny"), str(tmp_path / "x.gguf")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "ConversionError" in done.stderr.splitlines()[-1]
    assert "too large" in done.stderr.splitlines()[-1]
    assert names(tmp_path) == ["tiny"]


def test_an_output_that_is_there(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny")
    output = tmp_path / "x.gguf"
    output.write_text("mine")
    with pytest.raises(ConversionError, match=r"x\.gguf is there already; --force"):
        convert_checkpoint(tmp_path / "tiny", output)
    assert output.read_text() == "mine"
    convert_checkpoint(tmp_path / "tiny", output, force=True)
    assert output.read_bytes()[:4] == b"GGUF"
    (tmp_path / "d").mkdir()
    with pytest.raises(ConversionError, match="is a directory"):
        convert_checkpoint(tmp_path / "tiny", tmp_path / "d", force=True)


def test_parts_of_another_number_are_replaced(tmp_path: Path) -> None:
    output = tmp_path / "x.gguf"
    old = [tmp_path / f"x-{i:05d}-of-00002.gguf" for i in (1, 2)]
    for path in (*old, tmp_path / "xy-00001-of-00001.gguf"):
        path.write_text("old")
    assert existing(output) == old
    assert parts_of(old[0]) == old
    assert parts_of(output) == [output]
    with publishing(output, force=True) as place:
        for i in (1, 2, 3):
            (place / f"x-{i:05d}-of-00003.gguf").write_text("new")
    assert names(tmp_path) == [f"x-{i:05d}-of-00003.gguf" for i in (1, 2, 3)] + ["xy-00001-of-00001.gguf"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything is allowed to root")
def test_a_place_that_is_forbidden(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny")
    tmp_path.chmod(0o500)
    with pytest.raises(ConversionError, match="Permission denied"):
        convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf")


def test_a_place_that_is_a_file(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConversionError, match=r"file/?.*: (Not a directory|File exists)"):
        convert_checkpoint(tmp_path / "tiny", tmp_path / "file" / "x.gguf")


def test_room_is_looked_for_where_it_will_be(tmp_path: Path) -> None:
    check_space(tmp_path / "not" / "there", 1)
    with pytest.raises(ConversionError, match=f"{tmp_path} has .* free, and 1000000.0 TB are needed"):
        check_space(tmp_path / "not" / "there", 10**18)


@pytest.mark.parametrize(
    ("n", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (270_123_456, "270.1 MB"), (16.4e9, "16.4 GB")],
)
def test_bytes_as_people_say_them(n: float, said: str) -> None:
    assert format_bytes(n) == said
