"""Mailbox: brings calls from other threads to an event loop; one wake-up delivers all that have come."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

logger = logging.getLogger(__name__)


class Mailbox:
    """Calls of other threads, for one event loop.

    An engine draws a token for each stream in one step. A wake-up for each token would cost more than
    the token's way to its client, so only the first call after a delivery wakes the loop.

    Args:
        loop: calls the functions.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._is_woken = False

    def put(self, function: Callable[..., object], *arguments: object) -> None:
        """Have the loop call a function soon, in the order of these calls; from any thread.

        Nothing happens once the loop is closed.
        """
        self._calls.append(partial(function, *arguments))
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_woken = False  # first: what comes from now on may be too late for this delivery
        for _ in range(len(self._calls)):
            call = self._calls.popleft()
            try:
                call()
            except Exception:
                logger.exception("%r failed", call)


__all__ = ["Mailbox"]
