"""Runs cases in a child process, which is started again when it dies, hangs or grows.

The child takes the path of a case a line, and answers with a line of JSON: what became of it (``outcome``),
the error's text, and its own largest resident set so far, in bytes.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.peak_memory import peak_bytes

SECONDS = 10.0
GROWTH = 10**9
_MOST_MEMORY = 12 << 30  # of address space: keeps the machine alive, far above what a case may use
Try = Callable[[Path], str]
"""Opens a file and returns what became of it (a word or two), or raises an error of ours."""


@dataclass
class Report:
    """``outcomes``: how often each; ``problems``: the case and what was wrong with what happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        for outcome, count in self.outcomes.most_common():
            yield f"{count:7,}  {outcome}"
        for case, problem in self.problems:
            yield f"case {case}: {problem}"


class Child:
    def __init__(self, module: str, *arguments: str, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._command = [sys.executable, "-m", module, "--child", *arguments]
        self._process: subprocess.Popen[str] | None = None
        self._least = 0
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as this)

    def run(self, path: Path) -> tuple[str, str | None]:
        """Return what became of a file, and what was wrong with that."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
        if not select.select([process.stdout], [], [], self._seconds)[0]:
            self.stop()
            return "hang", f"no answer in {self._seconds:g} s"
        answer = process.stdout.readline()
        if not answer:
            said = self._last_words(process)
            return "crash", f"the process ended with status {process.returncode}: {said}"
        result = json.loads(answer)
        if result["memory"] - self._least > GROWTH:
            self.stop()
            return "growth", f"the process grew by {(result['memory'] - self._least) / 1e6:,.0f} MB"
        return result["outcome"], result["problem"]

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        self._said.seek(0)
        self._said.truncate()
        self._process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=self._said, text=True, errors="replace"
        )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        assert ready, self._last_words(self._process)
        self._least = json.loads(ready)["memory"]
        return self._process

    def _last_words(self, process: subprocess.Popen[str]) -> str:
        process.communicate()
        self._process = None
        self._said.seek(0)
        said = self._said.read().decode("utf-8", "replace")
        telling = [
            line for line in said.splitlines() if "ASSERT" in line or "rror" in line or "what()" in line
        ]
        return " | ".join(telling[-2:] or said.splitlines()[-2:])


def fuzz(child: Child, cases: Iterator[tuple[int, bytes]], directory: Path, keep: bool = False) -> Report:
    """Try each case; a file that led to a problem stays in ``directory`` if it is to be kept."""
    report = Report()
    try:
        for number, case in cases:
            path = directory / f"{number}.gguf"
            path.write_bytes(case)
            outcome, problem = child.run(path)
            report.outcomes[outcome] += 1
            if problem:
                report.problems.append((number, problem))
            if not (problem and keep):
                path.unlink()
    finally:
        child.stop()
    return report


def serve(attempt: Try, ours: tuple[type[Exception], ...]) -> None:
    """Be the child: ``ours`` are the errors that an attempt may raise."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # libraries may print
        print(json.dumps({"memory": peak_bytes()}), file=answers, flush=True)
        for line in sys.stdin:
            outcome, problem = _judge(attempt, ours, Path(line.rstrip("\n")))
            answer = {"outcome": outcome, "problem": problem, "memory": peak_bytes()}
            print(json.dumps(answer), file=answers, flush=True)


def _judge(attempt: Try, ours: tuple[type[Exception], ...], path: Path) -> tuple[str, str | None]:
    try:
        return attempt(path), None
    except ours as error:
        said = str(error)
        return _kind(said), None if said.strip() else "an error without a message"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "foreign error", f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"


def _kind(said: str) -> str:
    return "refused by llama.cpp" if "llama.cpp c" in said or "llama_decode" in said else "refused"
