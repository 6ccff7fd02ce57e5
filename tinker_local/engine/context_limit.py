"""How many contexts stay in memory: those in use, and the last few that were."""

from __future__ import annotations

import threading
from typing import Protocol

_ROUNDING = 1e-9


class Holder(Protocol):
    """Whoever has a context.

    Attributes:
        part: what the context takes of what all may take together, from 0 to 1.
    """

    part: float

    def ask_to_release(self) -> None:
        """Free the context soon, unless there is work again. May be called from any thread."""


class ContextLimit:
    """Lets the contexts go that were idle longest, when all take more than they may.

    A context is counted from ``opened`` to ``closed``, or until its holder is asked to release it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Holder, None] = {}  # the longest idle first
        self._taken = 0.0

    def opened(self, holder: Holder) -> None:
        """Count a holder's context, in use for now."""
        with self._lock:
            self._taken += holder.part
            self._trim()

    def closed(self, holder: Holder) -> None:
        """Count it no more."""
        with self._lock:
            self._taken -= holder.part
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
        while self._taken > 1 + _ROUNDING and self._idle:
            holder = next(iter(self._idle))
            del self._idle[holder]
            self._taken -= holder.part
            holder.ask_to_release()
