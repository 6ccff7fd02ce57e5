"""The converter's tasks, as forks of a process that has imported llama.cpp already.

A conversion runs a task or two (``convert.verification.llama_process``), each in a process of its own. The
comparison of tokenizers is a process too. Such a process spends most of its time importing. Hundreds of
tests convert something, so here one server forks the tasks. A task has its pipes, its environment and its
exit status as ever. Where tests run a command as a process of its own, that process starts tasks as users
do.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import IO, Any

import pytest

from convert.verification import llama_process, tokenization

_PRELOADED = ["pytest", "llama_cpp", "convert.verification.tokenization", "convert.quantize"]


class Fork:
    """What a task's process needs of ``subprocess.Popen``: a module or a program of Python and its file."""

    def __init__(self, command: list[str], *, env: Mapping[str, str] = os.environ, **_: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        stdin, writer = context.Pipe(duplex=False)
        reader, stdout = context.Pipe(duplex=False)
        arguments = (command[2:], dict(env), os.getcwd(), stdin, stdout)
        self._process = context.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        self.stdin, self.stdout = _file(os.dup(writer.fileno()), "w"), _file(os.dup(reader.fileno()), "r")
        for connection in (stdin, writer, reader, stdout):
            connection.close()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        status = self._process.exitcode
        assert status is not None
        return status

    def kill(self) -> None:
        self._process.kill()


def _file(descriptor: int, mode: str) -> IO[str]:
    return open(descriptor, mode, encoding="utf-8", errors="replace")


def _run(
    command: list[str], environment: dict[str, str], directory: str, stdin: Connection, stdout: Connection
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    for number, connection in enumerate((stdin, stdout, stdout)):
        os.dup2(connection.fileno(), number)
    stdin.close()
    stdout.close()
    sys.stdin, sys.stdout, sys.stderr = (_file(number, "rww"[number]) for number in range(3))
    task, *sys.argv[1:] = command
    if task.endswith(".py"):
        runpy.run_path(task, run_name="__main__")
        sys.stdout.flush()
        return
    module = importlib.import_module(task)
    module.serve(module.run)


def run_forked(command: list[str], *, input: bytes, **_: Any) -> subprocess.CompletedProcess[bytes]:
    """What the comparison of tokenizers needs of ``subprocess.run``."""
    fork = Fork(command)
    with suppress(BrokenPipeError), fork.stdin:
        fork.stdin.write(input.decode())
    with fork.stdout:
        said = fork.stdout.read().encode()
    return subprocess.CompletedProcess(command, fork.wait(), said, said)


@contextmanager
def forked_tasks() -> Iterator[None]:
    """Fork the tasks of conversions in this process, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        yield
        return
    stand_in = SimpleNamespace(Popen=Fork, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama_process, "subprocess", stand_in)
        expired = subprocess.TimeoutExpired
        patch.setattr(tokenization, "subprocess", SimpleNamespace(run=run_forked, TimeoutExpired=expired))
        yield
