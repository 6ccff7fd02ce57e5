"""Signals end any command: in good order, soon, and with status 128 + the signal's number."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.random_checkpoints.plain import write_llama
from tests.random_model import Shape, write_random_model
from tinker_local import BadRequestError, SamplingClient
from tinker_local.cli import app, interruption
from tinker_local.cli.interruption import reported_interruptions
from tinker_local.llama import aborting, model
from tinker_local.options import Options

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="a mutex as Linux lays it out")

SIGNALS = [
    (signal.SIGINT, 130, "interrupted"),
    (signal.SIGTERM, 143, "SIGTERM"),
    (signal.SIGHUP, 129, "SIGHUP"),
]
SETTINGS = ("--n-ctx", "2048", "--n-threads", "1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", shape=Shape(n_layer=2))


@pytest.fixture(autouse=True)
def aborted(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set when llama.cpp is aborted, which here must not reach the contexts of other tests."""
    event = threading.Event()
    monkeypatch.setattr(interruption, "abort_all", event.set)
    yield event
    assert signal.set_wakeup_fd(-1) == -1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def after_submitting(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Return a function that has a signal sent when so many requests are submitted."""

    def prepare(number: int, n: int) -> None:
        original, seen = SamplingClient.sample, [0]

        def sample(*arguments: Any, **named: Any) -> Any:
            future = original(*arguments, **named)
            seen[0] += 1
            if seen[0] == n:
                send(number)
            return future

        monkeypatch.setattr(SamplingClient, "sample", sample)

    return prepare


@pytest.mark.parametrize(("number", "status", "said"), SIGNALS)
def test_while_tokens_are_sampled(
    tiny: Path, after_submitting: Callable[[int, int], None], number: int, status: int, said: str
) -> None:
    after_submitting(number, 1)
    result = run("sample", "ab", "--model", tiny, *SETTINGS, "--max-tokens", "1900", "--temperature", "0")
    assert result.exit_code == status, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) == 1


def test_a_file_of_requests(
    tiny: Path, tmp_path: Path, after_submitting: Callable[[int, int], None]
) -> None:
    """The lines that are written are whole, nothing else is left, and the next run goes on."""
    asked, out = tmp_path / "in", tmp_path / "out"
    asked.write_text(
        "".join(json.dumps({"prompt": "ab" * n}) + "\n" for n in range(1, 20)), encoding="utf-8"
    )
    command = ("sample", "--model", tiny, *SETTINGS, "--max-tokens", "8", "--input", asked, "--output", out)
    after_submitting(signal.SIGTERM, 15)
    result = run(*command)
    assert result.exit_code == 143, result.output
    assert "the same command again" in result.stderr
    lines = out.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["line"] for line in lines] == list(range(1, len(lines) + 1))
    assert all(line.endswith(b"}\n") for line in lines)
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))
    assert run(*command).exit_code == 0
    assert len(out.read_bytes().splitlines()) == 19


@pytest.mark.parametrize("moment", ["print_info", "llama_context"])
def test_while_llama_cpp_loads(tiny: Path, moment: str) -> None:
    logger = logging.getLogger("tinker_local.llama")

    class Sender(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # contexts of other tests may be freed meanwhile, and say so (``~llama_context``)
            is_ours = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            if is_ours and record.getMessage().startswith(moment):
                logger.removeHandler(self)
                send(signal.SIGTERM)

    sender, level = Sender(), logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(sender)
    try:
        # another number of layers on devices: a model of its own, which is not open yet
        result = run("logprobs", "ab", "--model", tiny, *SETTINGS, "--n-gpu-layers", 3 + len(moment))
    finally:
        logger.removeHandler(sender)
        logger.setLevel(level)
    assert result.exit_code == 143, result.output
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["doctor", "bench", "models list", "models verify", "models show x"])
def test_other_commands(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Whatever they are doing when the signal comes; here, finding out their options."""
    monkeypatch.setattr(Options, "resolve", lambda *_: send(signal.SIGTERM))
    result = run(*command.split())
    assert result.exit_code == 143, result.output
    assert result.stderr.splitlines() == ["ended by SIGTERM"]


def test_commands_of_the_converter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which says so in its own words."""
    monkeypatch.setattr("convert.convert.convert_checkpoint", lambda *_, **__: send(signal.SIGTERM))
    write_llama(tmp_path / "tiny")
    result = run("convert", tmp_path / "tiny", "-o", tmp_path / "x.gguf")
    assert result.exit_code == 143, result.output
    assert result.stderr.splitlines() == ["interrupted; nothing was left behind"]
    monkeypatch.setattr(Options, "resolve", lambda *_: send(signal.SIGTERM))
    assert run("models", "tune", "x").exit_code == 143


@pytest.fixture
def taken() -> tuple[Callable[[], None], Callable[[], None]]:
    """How to wait in C, where no signal ends the waiting, and how to end it: a mutex that is taken."""
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)  # PTHREAD_MUTEX_INITIALIZER
    library.pthread_mutex_lock(mutex)
    return lambda: library.pthread_mutex_lock(mutex), lambda: library.pthread_mutex_unlock(mutex)


@linux
def test_a_main_thread_that_is_in_llama_cpp(
    taken: tuple[Callable[[], None], Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handler cannot run; another thread aborts what llama.cpp does."""
    wait, abort = taken
    monkeypatch.setattr(interruption, "_PATIENCE", 0.01)
    monkeypatch.setattr(interruption, "abort_all", abort)
    threading.Timer(0.05, send, [signal.SIGTERM]).start()
    with pytest.raises(typer.Exit) as left, reported_interruptions():
        wait()
    assert left.value.exit_code == 143


@linux
def test_a_main_thread_that_never_comes_back(
    taken: tuple[Callable[[], None], Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends without it."""
    monkeypatch.setattr(interruption, "_PATIENCE", 0.01)
    monkeypatch.setattr(interruption, "_MOST", 0.01)
    pid = os.fork()
    if pid == 0:
        with reported_interruptions():
            threading.Timer(0.02, send, [signal.SIGTERM]).start()
            taken[0]()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143


class Sending:
    """Sends a signal where exceptions come to nothing."""

    def __del__(self) -> None:
        send(signal.SIGTERM)


def delete() -> None:
    Sending()


def finalize() -> None:
    weakref.finalize(type("Thing", (), {})(), send, signal.SIGTERM)


@pytest.mark.parametrize(
    "swallow", [delete, finalize, ctypes.CFUNCTYPE(None)(lambda: send(signal.SIGTERM))]
)
def test_a_signal_in_a_place_that_raises_nothing(swallow: Callable[[], None]) -> None:
    """Such as llama.cpp's messages, which come by a callback of C."""

    def work() -> None:
        with reported_interruptions():
            swallow()
            time.sleep(60)

    with pytest.raises(typer.Exit) as left:
        work()
    assert left.value.exit_code == 143


def test_loading_ends_when_it_is_aborted(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = aborting.new_abort_flag()
    flag.set()
    monkeypatch.setattr(model, "new_abort_flag", lambda: flag)
    with pytest.raises(BadRequestError, match="cannot load"):
        model.Model(tiny, 0)
    monkeypatch.undo()
    assert model.Model(tiny, 0).n_vocab == 400


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with reported_interruptions():
            send(signal.SIGHUP)
            time.sleep(0.01)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_has_no_signals() -> None:
    done: list[bool] = []

    def work() -> None:
        with reported_interruptions():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
