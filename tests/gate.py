"""A gate before an engine's steps, so that requests of a test arrive together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinker_local import APIFuture, SampleResponse

_SECONDS = 60


class Gate:
    """Stands open, until a test closes it."""

    def __init__(self) -> None:
        self._open, self._reached = threading.Event(), threading.Event()
        self._open.set()

    def pass_through(self) -> None:
        """Called by the engine before each step; waits while the gate is closed."""
        self._reached.set()
        self._open.wait(_SECONDS)

    @contextmanager
    def closed(self, submit: Callable[[], APIFuture[SampleResponse]]) -> Iterator[None]:
        """What is submitted inside has all arrived before any of it is computed.

        A first request stands at the gate by then. Its step is planned already, without anybody else.

        Args:
            submit: submits that request.
        """
        self._open.clear()
        self._reached.clear()
        first = submit()
        try:
            assert self._reached.wait(_SECONDS), "the first request does not come to its step"
            yield
        finally:
            self._open.set()
            first.result()
