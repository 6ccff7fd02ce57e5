"""Callbacks of users run on threads of their own, so that one that blocks holds up no result.

There are up to ``MOST_THREADS`` of them. Where all are busy for long, further callbacks wait, and a warning
names the one that has run longest. The engine and those who wait for results never wait for a callback.
"""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

MOST_THREADS = 32
LONG = 5.0
"""Seconds after which a callback that others wait for is named in a warning."""

logger = logging.getLogger(__name__)


class CallbackThreads:
    """Threads that run callbacks; each is made when all others are busy.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int = MOST_THREADS) -> None:
        self._most = most
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="tinker-local-callbacks")
        self._lock = threading.Lock()
        self._running: dict[int, tuple[float, Callable[..., object]]] = {}  # by thread, the oldest first
        self._n_unfinished = 0
        self._is_watched = False

    def run(self, work: Callable[[], None], callback: Callable[..., object]) -> None:
        """Do ``work`` on one of the threads; returns at once.

        Args:
            work: what is to be done.
            callback: the user's function in it, for the warning.
        """
        with self._lock:
            self._n_unfinished += 1
            watch = self._n_unfinished > self._most and not self._is_watched
            self._is_watched |= watch
        if watch:
            self._look_in(LONG)
        try:
            self._pool.submit(self._do, work, callback)
        except RuntimeError:  # the interpreter is leaving, or there are no more threads
            self._do(work, callback)

    def _do(self, work: Callable[[], None], callback: Callable[..., object]) -> None:
        thread = threading.get_ident()
        with self._lock:
            self._running[thread] = time.monotonic(), callback
        try:
            work()
        except BaseException:
            logger.exception("the callback %s failed", name_of(callback))
        finally:
            with self._lock:
                self._running.pop(thread, None)
                self._n_unfinished -= 1

    def _look_in(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._look)
        timer.daemon = True
        timer.start()

    def _look(self) -> None:
        """Warn if callbacks wait for one that has run long; look again while any wait."""
        with self._lock:
            n_waiting = self._n_unfinished - len(self._running)
            began, callback = min(self._running.values(), key=lambda entry: entry[0], default=(0.0, None))
            self._is_watched = n_waiting > 0
        if callback is None or n_waiting <= 0:
            return
        seconds = time.monotonic() - began
        if seconds < LONG:
            self._look_in(LONG - seconds)
            return
        logger.warning(
            "%d callbacks are running, the longest for %.0f s: %s; %d others wait for one of them to end. "
            "Results do not wait.",
            self._most,
            seconds,
            name_of(callback),
            n_waiting,
        )
        self._look_in(12 * LONG)


class InOrder:
    """Calls one callback again and again, in order and never twice at a time.

    Attributes:
        error: what the callback raised; it is not called again then.
    """

    def __init__(self, callback: Callable[..., object]) -> None:
        self.error: Exception | None = None
        self._callback = callback
        self._lock = threading.Lock()
        self._calls: deque[Callable[[], object]] = deque()
        self._is_at_work = False

    def call(self, *arguments: Any) -> None:
        """Call the callback with these arguments, after all that was asked for before; returns at once.

        Raises:
            Exception: an earlier call failed with it.
        """
        if self.error is not None:
            raise self.error
        self.then(partial(self._call, arguments))

    def then(self, function: Callable[[], object]) -> None:
        """Call another function, after all that was asked for before; returns at once."""
        with self._lock:
            self._calls.append(function)
            if self._is_at_work:
                return
            self._is_at_work = True
        threads().run(self._work, self._callback)

    def drop(self) -> None:
        """Forget the calls that have not begun."""
        with self._lock:
            self._calls.clear()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._is_at_work = False
                    return
                call = self._calls.popleft()
            try:
                call()
            except BaseException:
                logger.exception("the callback %s failed", name_of(self._callback))

    def _call(self, arguments: tuple[Any, ...]) -> None:
        if self.error is not None:
            return
        try:
            self._callback(*arguments)
        except Exception as error:
            self.error = error
        except BaseException as error:  # SystemExit would end only the thread
            self.error = RuntimeError(f"a callback raised {error!r}")


def name_of(callback: Callable[..., object]) -> str:
    """Return the name of a function and where it stands: ``Saver.write (run.py:12)``."""
    while isinstance(callback, partial):
        callback = callback.func
    function = inspect.unwrap(getattr(callback, "__func__", callback))
    name = getattr(function, "__qualname__", type(callback).__qualname__)
    code = getattr(function, "__code__", None)
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"


_threads: dict[int, CallbackThreads] = {}
_threads_lock = threading.Lock()


def threads() -> CallbackThreads:
    """Return the threads of this process; those of its parent do not exist in a forked one."""
    with _threads_lock:
        pid = os.getpid()
        if pid not in _threads:
            _threads.clear()
            _threads[pid] = CallbackThreads()
        return _threads[pid]


def _after_fork() -> None:
    """Make the lock anew: a thread of the parent may have held it, and does not exist here."""
    global _threads_lock
    _threads_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


__all__ = ["CallbackThreads", "InOrder", "name_of", "threads"]
