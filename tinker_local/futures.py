"""APIFuture: the future that every request returns."""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABCMeta
from collections.abc import Callable, Generator
from concurrent.futures import Future
from functools import partial
from typing import Any, Self, TypeAlias, TypeVar

from tinker_local.callbacks import name_of, threads

T = TypeVar("T")
Callback: TypeAlias = Callable[[Future[Any]], object]

logger = logging.getLogger(__name__)


class APIFuture(Future[T], metaclass=ABCMeta):
    """A ``concurrent.futures.Future`` that can also be awaited, from any event loop.

    ``result(timeout)`` blocks, ``await future`` does not. ``concurrent.futures.wait`` and ``as_completed``
    accept it. Cancelling it, or the task that awaits it, frees the request's memory at the engine's next
    step. Nobody who waits for a result waits for a callback: see ``add_done_callback``.
    """

    _callbacks: list[Callback] | None = None  # those of users, unless they have been called

    def __init__(self) -> None:
        super().__init__()
        self._condition = _Condition()  # type: ignore[assignment]

    def add_done_callback(self, fn: Callback) -> None:
        """Call ``fn`` with this future when it is done; at once if it is done already.

        The callbacks of a future run in the order in which they were added, on one thread for callbacks.
        They may block: results never wait for them, and there are threads for the callbacks of 32 futures.
        Where all of these block, further callbacks wait, and a warning names one that blocks. The callbacks
        of a cancelled future run in the thread that cancels it.
        """
        if _only_wakes(fn):
            super().add_done_callback(fn)
            return
        with self._condition:
            if not self.done():
                if self._callbacks is None:
                    self._callbacks = []
                    super().add_done_callback(_call_back)
                self._callbacks.append(fn)
                return
        super().add_done_callback(fn)

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


def when_done(future: Future[Any], fn: Callback) -> None:
    """Call ``fn``, which is ours and never blocks, in the thread that resolves a future."""
    Future.add_done_callback(future, fn)


def _only_wakes(fn: Callback) -> bool:
    """Whether a callback is asyncio's, which only wakes an event loop."""
    return getattr(fn, "__module__", None) == "asyncio.futures"


def _call_back(future: Future[Any]) -> None:
    """Call a future's callbacks of users; those of a cancelled one here, as in the standard library."""
    assert isinstance(future, APIFuture)
    callbacks, future._callbacks = future._callbacks or [], None
    if future.cancelled():
        _call(callbacks, future)
    else:
        threads().run(partial(_call, callbacks, future), callbacks[0])


def _call(callbacks: list[Callback], future: Future[Any]) -> None:
    for callback in callbacks:
        try:
            callback(future)
        except Exception:
            logger.exception("the callback %s of a future failed", name_of(callback))


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


__all__ = ["APIFuture", "Ready", "finished", "when_done"]
