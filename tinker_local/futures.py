"""APIFuture: the future that every request returns."""

from __future__ import annotations

import asyncio
import threading
from abc import ABCMeta
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, Self, TypeVar

T = TypeVar("T")


class APIFuture(Future[T], metaclass=ABCMeta):
    """A ``concurrent.futures.Future`` that can also be awaited, from any event loop.

    ``result(timeout)`` blocks, ``await future`` does not. ``concurrent.futures.wait`` and ``as_completed``
    accept it. Cancelling it, or the task that awaits it, frees the request's memory at the engine's next
    step.
    """

    def __init__(self) -> None:
        super().__init__()
        self._condition = _Condition()  # type: ignore[assignment]

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result, for at most ``timeout`` seconds.

        Raises:
            TimeoutError: there is no result yet; the request goes on.
            CancelledError: the future was cancelled.
        """
        return super().result(timeout)

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()

    async def result_async(self, timeout: float | None = None) -> T:
        """Await the result for at most ``timeout`` seconds.

        Raises:
            TimeoutError: there is no result yet; the request goes on, as with ``result(timeout)``.
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


@APIFuture.register
class Ready:
    """Base of a client that is also a finished future of itself.

    The SDK's methods that make clients return futures of them; older scripts use the result at once.
    """

    def result(self, timeout: float | None = None) -> Self:
        """Return this object."""
        return self

    async def result_async(self, timeout: float | None = None) -> Self:
        """Return this object."""
        return self

    def future(self) -> Future[Self]:
        """Return a finished ``concurrent.futures.Future`` of this object."""
        future: APIFuture[Self] = APIFuture()
        future.set_result(self)
        return future

    async def coroutine(self) -> Self:
        """Return this object."""
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.result_async().__await__()


def finished(value: T) -> APIFuture[T]:
    """Return a future that is done, with ``value`` as its result."""
    future: APIFuture[T] = APIFuture()
    future.set_result(value)
    return future


class _Condition:
    """A ``threading.Condition`` that is made when somebody waits: it takes 1.2 KB, and a batch has many.

    Few futures of a large batch are ever waited for one by one.
    """

    __slots__ = ("_lock", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiting: threading.Condition | None = None

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)

    def notify_all(self) -> None:
        if self._waiting is not None:
            self._waiting.notify_all()

    def __getattr__(self, name: str) -> Any:
        # all else is the real one's, made with the lock held
        with self._lock:
            if self._waiting is None:
                self._waiting = threading.Condition(self._lock)
        return getattr(self._waiting, name)


__all__ = ["APIFuture", "Ready", "finished"]
