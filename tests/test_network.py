"""The guard of ``network_guard`` catches what it should: a suite that passes has opened no connection."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ATTEMPTS = {
    "a connection": "socket.create_connection(('192.0.2.1', 80), 0.1)",
    "a name": "socket.getaddrinfo('example.com', 80)",
    "a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
    "a request": "urllib.request.urlopen('http://192.0.2.1/', timeout=0.1)",
    "a child's": (
        "subprocess.run([sys.executable, '-c', "
        "'import socket; socket.create_connection((\"192.0.2.1\", 80))'])"
    ),
}
INNOCENT = {
    "a socket pair": "a, b = socket.socketpair(); a.send(b'x'); b.recv(1); a.close(); b.close()",
    "an event loop": "asyncio.run(asyncio.sleep(0))",
    "a child": "subprocess.run([sys.executable, '-c', 'print(1)'], check=True)",
}


def session(deed: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a suite, with our ``conftest.py``, of one test that does something and hides what comes of it."""
    (directory / "conftest.py").write_text(
        f"from tests.conftest import *\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    )
    (directory / "test_deed.py").write_text(
        "import asyncio, contextlib, socket, subprocess, sys, urllib.request\n"
        "def test_deed():\n    with contextlib.suppress(Exception):\n"
        f"        {deed}\n"
    )
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


@pytest.mark.parametrize("case", ATTEMPTS)
def test_a_session_that_reaches_out_fails(case: str, tmp_path: Path) -> None:
    done = session(ATTEMPTS[case], tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "A network connection was attempted" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("case", INNOCENT)
def test_what_stays_here_is_no_connection(case: str, tmp_path: Path) -> None:
    done = session(INNOCENT[case], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_this_session_is_guarded() -> None:
    assert "TINKER_LOCAL_TESTS_NETWORK_LOG" in os.environ
    assert "network_guard" in os.environ["PYTHONPATH"]
