"""llama.cpp's own messages: they go to the logger ``tinker_local.llama`` (its "info" as DEBUG)."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import llama_cpp

_LOG_LEVELS = {  # enum ggml_log_level; its "info" is chatter to a Python user
    1: logging.DEBUG,
    2: logging.DEBUG,
    3: logging.WARNING,
    4: logging.ERROR,
}

_AS_INTENDED = (
    "non-consecutive token position",  # an image takes fewer positions than cells
    "require at minimum 1024 image tokens",  # sizes are those of the model's own processor
    "try adding --image-min-tokens",
    "issues/16842",  # of the same warning
)
"""Parts of warnings of llama.cpp's about what is done here on purpose."""

logger = logging.getLogger("tinker_local.llama")


class Log:
    """Joins llama.cpp's pieces of messages to lines, and remembers the last errors."""

    def __init__(self) -> None:
        self._line = threading.local()
        self._errors: deque[str] = deque(maxlen=4)

    def install(self) -> None:
        """Have llama.cpp send its messages here, from now on."""
        llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))

    def receive(self, level: int, text: bytes, _user_data: object) -> None:
        """Take a piece of a message; llama.cpp calls this.

        An exception cannot pass through llama.cpp to its caller. So Ctrl-C, if it comes while a message is
        taken, is kept for ``listening`` to raise.
        """
        try:
            self._take(level, text)
        except BaseException as error:
            self._line.error = error

    def _take(self, level: int, text: bytes) -> None:
        if level in _LOG_LEVELS:  # 5 continues the line before it
            self._line.level, self._line.text = _LOG_LEVELS[level], ""
        line = getattr(self._line, "text", "") + text.decode("utf-8", "replace")
        self._line.text = line
        if line.endswith("\n") and line.strip():
            self._emit(getattr(self._line, "level", logging.DEBUG), line.strip())
            self._line.text = ""

    def _emit(self, level: int, line: str) -> None:
        if level >= logging.ERROR:
            self._errors.append(line)
        if any(part in line for part in _AS_INTENDED):
            level = logging.DEBUG
        logger.log(level, "%s", line)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Forget the errors so far; raise at the end of the block what interrupted its messages."""
        self._errors.clear()
        self._line.error = None
        yield
        if (error := self._line.error) is not None:
            self._line.error = None
            raise error

    def last_errors(self) -> str:
        """Return the errors since ``listening`` began, at most four, in one line; empty if none."""
        return "; ".join(self._errors)


log = Log()
callback = llama_cpp.llama_log_callback(log.receive)  # must live: llama.cpp keeps only a bare pointer
