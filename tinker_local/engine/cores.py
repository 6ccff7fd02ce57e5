"""Who computes: contexts take turns, a step at a time, so that each gets its share of the machine."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Share:
    """What one context has used, in seconds of computing."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0.0


class Cores:
    """The machine's cores. Two contexts computing at once would only get in each other's way.

    The next turn goes to whoever waits and has used least. Time in which a context did not want to
    compute is not saved up (start-time fair queueing, Goyal et al., 1996).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._now = 0.0  # where the one whose turn it is began, in its own seconds
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._tickets = itertools.count()

    @contextmanager
    def turn(self, share: Share) -> Iterator[None]:
        """Wait for a turn, and hold it."""
        start = self._take(share)
        began = time.perf_counter()
        try:
            yield
        finally:
            share.used = start + time.perf_counter() - began
            self._pass_on()

    def _take(self, share: Share) -> float:
        with self._lock:
            start = max(share.used, self._now)
            if not self._is_taken:
                self._is_taken, self._now = True, start
                return start
            called = threading.Event()
            heapq.heappush(self._waiting, (start, next(self._tickets), called))
        called.wait()
        return start

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._now, _, called = heapq.heappop(self._waiting)
                called.set()
            else:
                self._is_taken = False


cores = Cores()
if hasattr(os, "register_at_fork"):  # the thread whose turn it was is not in the child
    os.register_at_fork(after_in_child=cores.__init__)  # type: ignore[misc]
