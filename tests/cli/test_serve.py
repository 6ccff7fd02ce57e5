"""``tinker-local serve``, run in this process: its errors, the lines to paste, and its end."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.serve.tiny_store import TINY, write_tiny_store
from tinker_local.cli import app, interruption


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, ("serve", *arguments))))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines; set a key"),
        (["--api-key", "secret"], "must be ASCII and begin with tml-"),
        (["--model", "nobody"], "no model is called 'nobody'"),
        (["--n-ctx", "0"], "n_ctx is"),
        (["--host", "no.such.host.invalid", "--api-key", "tml-x"], "nothing can listen at"),
    ],
)
def test_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str) -> None:
    def unknown(host: str, *args: Any, **kwargs: Any) -> Any:  # asks no server of names
        raise socket.gaierror("unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert said in result.output


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tinker_local.serve", "tinker_local.serve.application"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    result = run()
    assert result.exit_code == 1
    assert "serve needs the package starlette, which is missing" in result.output
    assert "[serve]" in result.output


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_prints_what_to_paste_and_ends_by_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    monkeypatch.setattr(interruption, "abort_all", lambda: None)
    said, answers = list[str](), list[bytes]()
    monkeypatch.setattr(typer, "echo", lambda text, **kwargs: said.append(text))

    def ask_and_end() -> None:
        try:
            while not (found := re.search(r"TINKER_BASE_URL=(\S+)", " ".join(said))):
                time.sleep(0.01)
            with urllib.request.urlopen(f"{found[1]}/v1/models", timeout=20) as answer:
                answers.append(answer.read())
        finally:
            os.kill(os.getpid(), number)

    asking = threading.Thread(target=ask_and_end)
    asking.start()
    store = write_tiny_store(tmp_path)
    result = run("--port", 0, "--models-dir", store, "--model", TINY, "--n-threads", 1, "--n-ctx", 256)
    asking.join()
    assert result.exit_code == status
    port = said[0].split(":")[2].split()[0]
    assert said[:3] == [
        f"export TINKER_BASE_URL=http://127.0.0.1:{port} TINKER_API_KEY=tml-local",
        f"export OPENAI_BASE_URL=http://127.0.0.1:{port}/v1 OPENAI_API_KEY=tml-local",
        f"# a page for browsers: http://127.0.0.1:{port}/",
    ]
    assert b'"Me/Tiny-F32"' in answers[0]
