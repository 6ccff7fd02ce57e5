"""Resources that all contexts of a process share: the cores, and a budget of memory.

Cores are lent for one step at a time. Contexts stay in memory while the budget has room for them.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from typing import Protocol

_ROUNDING = 1e-9


class Share:
    """Computing time that one context has used, in seconds."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0.0


class Cores:
    """The machine's cores, lent to one context at a time: two at once would only slow each other down.

    A context takes the cores before each step and leaves them when it has no work. Between two steps they
    go to whoever waits and has used less. Idle time is not saved up (start-time fair queueing, Goyal et
    al., 1996).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: Share | None = None
        self._since = 0.0  # when the holder's time was last counted
        self._now = 0.0  # what the last holder had used by then
        self._waiting: list[tuple[float, int, Share, threading.Event]] = []
        self._tickets = itertools.count()

    def take(self, share: Share) -> None:
        """Wait for the cores; their holder keeps them unless another waits that has used less."""
        # Start-time fair queueing: whoever was idle is raised to the time of those who were not, so that
        # nobody saves up a claim. Then the least used goes first.
        with self._lock:
            self._count()
            if self._holder is None:
                share.used = max(share.used, self._now)
                self._holder = share
            if self._holder is not share:
                share.used = max(share.used, self._least())
            elif not (self._waiting and self._waiting[0][0] < share.used):
                return
            called = threading.Event()
            heapq.heappush(self._waiting, (share.used, next(self._tickets), share, called))
            if self._holder is share:
                self._pass_on()
        called.wait()

    def leave(self, share: Share) -> None:
        """Give the cores back, if this share holds them."""
        with self._lock:
            if self._holder is share:
                self._count()
                self._pass_on()

    def _count(self) -> None:
        now = time.perf_counter()
        if self._holder is not None:
            self._holder.used += now - self._since
            self._now = self._holder.used
        self._since = now

    def _least(self) -> float:
        """Return the least time used by anybody who has work."""
        return min(self._now, self._waiting[0][0]) if self._waiting else self._now

    def _pass_on(self) -> None:
        self._holder = None
        if self._waiting:
            _, _, self._holder, called = heapq.heappop(self._waiting)
            called.set()


cores = Cores()
if hasattr(os, "register_at_fork"):  # the thread whose turn it was is not in the child
    os.register_at_fork(after_in_child=cores.__init__)  # type: ignore[misc]


class Holder(Protocol):
    """Owner of a context.

    Attributes:
        memory_share: fraction of the shared budget that the context uses, from 0 to 1.
    """

    memory_share: float

    def ask_to_release(self) -> None:
        """Free the context soon, unless there is work again. May be called from any thread."""


class ContextLimit:
    """Releases the contexts that were idle longest, when all together exceed the budget.

    A context is counted from ``opened`` to ``closed``, or until its holder is asked to release it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Holder, None] = {}  # the longest idle first
        self._taken = 0.0

    def opened(self, holder: Holder) -> None:
        """Count a holder's context, which is in use at first."""
        with self._lock:
            self._taken += holder.memory_share
            self._trim()

    def closed(self, holder: Holder) -> None:
        """Stop counting a holder's context."""
        with self._lock:
            self._taken -= holder.memory_share
            self._idle.pop(holder, None)

    def idle(self, holder: Holder) -> None:
        """Note that a holder's context has nothing to do."""
        with self._lock:
            self._idle[holder] = None
            self._trim()

    def busy(self, holder: Holder) -> None:
        """Note that a holder's context is in use."""
        with self._lock:
            self._idle.pop(holder, None)

    def _trim(self) -> None:
        while self._taken > 1 + _ROUNDING and self._idle:
            holder = next(iter(self._idle))
            del self._idle[holder]
            self._taken -= holder.memory_share
            holder.ask_to_release()
