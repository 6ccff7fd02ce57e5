"""llama.cpp in a process of its own, where an abort is an error message and Ctrl-C works.

A task is a module of this package that ends in ``serve(run)``. The process reads its arguments as a line
of JSON on standard input, and ends when that is closed: whoever started it was killed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from convert.errors import ConversionError, LlamaError

_PACKAGES = str(Path(__file__).resolve().parents[2])
_TELLING = re.compile(r"error|failed|abort|assert|invalid|requires", re.IGNORECASE)
_REFUSED = 3  # exit status of a task that raised a ConversionError


class LlamaProcess:
    """A task that runs in a process of its own.

    Args:
        task: the module to run, such as ``convert.quantize``.
        arguments: what its ``run`` is called with.
        on_line: is called on a thread with every line that it writes.
    """

    def __init__(self, task: str, arguments: Any, on_line: Callable[[str], None] | None = None) -> None:
        paths = filter(None, (_PACKAGES, os.environ.get("PYTHONPATH")))
        environment = {
            "PYTHONPATH": os.pathsep.join(paths),
            "GGML_NO_BACKTRACE": "1",
            "PYTHONIOENCODING": "utf-8:replace",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            encoding="utf-8",
            errors="replace",
        )
        self._on_line = on_line
        self._error: BaseException | None = None
        self._last: deque[str] = deque(maxlen=50)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its end says more
            self._process.stdin.write(json.dumps(arguments) + "\n")
            self._process.stdin.flush()

    def check(self) -> None:
        """Raise LlamaError if the task has failed, with its message or the end of llama.cpp's log."""
        if self._process.poll():
            self.wait()

    def wait(self) -> str:
        """Wait for the task; return its last line. Raises as ``check``, or what ``on_line`` raised."""
        status = self._process.wait()
        self._reader.join()
        if self._error:
            raise self._error
        lines = list(self._last)
        if status == _REFUSED:
            raise LlamaError(lines[-1])
        if status:
            telling = [line for line in lines if _TELLING.search(line)] or lines
            raise LlamaError("; ".join(telling[-2:]) or f"llama.cpp ended with status {status}")
        return lines[-1]

    def stop(self) -> None:
        """Kill the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.strip():
                    self._last.append(line.strip())
                    if self._on_line and not self._error:
                        self._tell(line)

    def _tell(self, line: str) -> None:
        assert self._on_line is not None
        try:
            self._on_line(line)
        except BaseException as error:  # is raised where the process is waited for
            self._error = error
            self._process.kill()


@contextmanager
def llama_process(
    task: str, arguments: dict[str, Any], on_line: Callable[[str], None] | None = None
) -> Iterator[LlamaProcess]:
    """Run a task in another process, which is killed if it still runs when the block ends."""
    process = LlamaProcess(task, arguments, on_line)
    try:
        yield process
    finally:
        process.stop()


def _end_with_parent() -> None:
    while os.read(0, 1):  # sys.stdin itself would be locked when the interpreter leaves
        pass
    os._exit(1)


def serve(run: Callable[..., str]) -> None:
    """Be a task's process: call ``run`` with the arguments from standard input; print its result."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python would hear of it only when llama.cpp is done
    try:
        arguments = json.loads(sys.stdin.readline())
        threading.Thread(target=_end_with_parent, daemon=True).start()
        said, status = run(**arguments), 0
    except ConversionError as error:
        said, status = " ".join(str(error).split()), _REFUSED
    print(f"\n{said}", flush=True)
    sys.exit(status)
