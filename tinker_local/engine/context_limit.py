"""How many contexts stay in memory: those in use, and the last few that were."""

from __future__ import annotations

import threading
from typing import Protocol


class Holder(Protocol):
    """Whoever has a context."""

    def ask_to_release(self) -> None:
        """Free the context soon, unless there is work again. May be called from any thread."""


class ContextLimit:
    """Lets the contexts go that were idle longest, when there are more than ``limit``.

    A context is counted from ``opened`` to ``closed``, or until its holder is asked to release it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: dict[Holder, None] = {}  # the longest idle first
        self._n_open = 0

    def opened(self) -> None:
        """Count a context, in use for now."""
        with self._lock:
            self._n_open += 1
            self._trim()

    def closed(self, holder: Holder) -> None:
        """Count it no more."""
        with self._lock:
            self._n_open -= 1
            self._idle.pop(holder, None)

    def idle(self, holder: Holder) -> None:
        """Note that its context has nothing to do."""
        with self._lock:
            self._idle[holder] = None
            self._trim()

    def busy(self, holder: Holder) -> None:
        """Note that its context is in use."""
        with self._lock:
            self._idle.pop(holder, None)

    def _trim(self) -> None:
        while self._n_open > self._limit and self._idle:
            holder = next(iter(self._idle))
            del self._idle[holder]
            self._n_open -= 1
            holder.ask_to_release()
