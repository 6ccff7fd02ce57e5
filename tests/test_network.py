"""The guard of ``network_guard`` catches what it should: a suite that passes has opened no connection."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ATTEMPTS = {
    "a_connection": ("socket.socket().connect(('192.0.2.1', 80))", "socket.connect ('192.0.2.1', 80)"),
    "a_connection_by_name": (
        "socket.create_connection(('192.0.2.2', 80), 0.1)",
        "socket.getaddrinfo '192.0.2.2'",
    ),
    "a_name": ("socket.getaddrinfo('example.com', 80)", "socket.getaddrinfo 'example.com'"),
    "a_datagram": (
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.3', 9))",
        "socket.sendto ('192.0.2.3', 9)",
    ),
    "a_request": (
        "urllib.request.urlopen('http://192.0.2.4/', timeout=0.1)",
        "socket.getaddrinfo '192.0.2.4'",
    ),
    "of_a_child": (
        "subprocess.run([sys.executable, '-c', "
        "'import socket; socket.create_connection((\"192.0.2.5\", 80))'])",
        "socket.getaddrinfo '192.0.2.5'",
    ),
}
"""What is done, and what is told of it."""

INNOCENT = {
    "a_socket_pair": "a, b = socket.socketpair(); a.send(b'x'); b.recv(1); a.close(); b.close()",
    "an_event_loop": "asyncio.run(asyncio.sleep(0))",
    "a_child": "subprocess.run([sys.executable, '-c', 'print(1)'], check=True)",
}


def session(deeds: Mapping[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a suite, with our ``conftest.py``, of tests that do something and hide what comes of it."""
    (directory / "conftest.py").write_text(
        f"from tests.conftest import *\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    )
    tests = "import asyncio, contextlib, socket, subprocess, sys, urllib.request\n"
    for name, deed in deeds.items():
        tests += f"def test_{name}():\n    with contextlib.suppress(Exception):\n        {deed}\n"
    (directory / "test_deeds.py").write_text(tests)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        str(directory),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), os.environ["PYTHONPATH"]))}
    return subprocess.run(
        [*command, str(directory)], capture_output=True, text=True, env=environment, check=False
    )


def test_a_session_that_reaches_out_fails(tmp_path: Path) -> None:
    done = session({name: deed for name, (deed, _) in ATTEMPTS.items()}, tmp_path)
    assert f"{len(ATTEMPTS)} passed" in done.stdout, done.stdout + done.stderr
    _, _, told = done.stdout.partition("A network connection was attempted")
    for name, (_, attempt) in ATTEMPTS.items():
        assert attempt in told, f"{name}: {told}"
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


@pytest.mark.long
@pytest.mark.parametrize("name", ATTEMPTS)
def test_one_attempt_is_enough(name: str, tmp_path: Path) -> None:
    done = session({name: ATTEMPTS[name][0]}, tmp_path)
    assert ATTEMPTS[name][1] in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_what_stays_here_is_no_connection(tmp_path: Path) -> None:
    done = session(INNOCENT, tmp_path)
    assert f"{len(INNOCENT)} passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr


def test_this_session_is_guarded() -> None:
    assert "TINKER_LOCAL_TESTS_NETWORK_LOG" in os.environ
    assert "network_guard" in os.environ["PYTHONPATH"]
