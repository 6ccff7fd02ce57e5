"""APIFuture: the future that every request returns."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class APIFuture(Future[T]):
    """A ``concurrent.futures.Future`` that can also be awaited, from any event loop.

    ``result(timeout)`` blocks, ``await future`` does not; ``concurrent.futures.wait`` and
    ``as_completed`` take it as they take any future. Cancelling it, or the task that awaits it,
    frees what the request held at the engine's next step.
    """

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()

    async def result_async(self, timeout: float | None = None) -> T:
        """Await the result for at most ``timeout`` seconds.

        Raises:
            TimeoutError: the time is over; the request goes on, as with ``result(timeout)``.
        """
        waiting = asyncio.wrap_future(self)
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), timeout)
        except asyncio.CancelledError:
            waiting.cancel()
            raise

    def future(self) -> Future[T]:
        """Return the ``concurrent.futures.Future`` of this request: itself."""
        return self

    async def coroutine(self) -> T:
        """Await the result as a coroutine, for ``asyncio.create_task`` and its like."""
        return await self


__all__ = ["APIFuture"]
