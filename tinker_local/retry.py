"""RetryConfig: bounds the requests at a time, retries failed ones, gives up without progress."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tinker_local.engine.request import Request
from tinker_local.errors import APIConnectionError, APIStatusError, RateLimitError, TinkerError
from tinker_local.futures import APIFuture, when_done

_RETRYABLE_STATUS = frozenset({408, 409, 429, *range(500, 600)})


@dataclass
class RetryConfig:
    """How a ``SamplingClient`` treats requests that fail or make no progress.

    Attributes:
        max_connections: most requests of the client in the engine at a time; the others wait. None: no
            limit.
        progress_timeout: seconds. If no request of the client ends for so long, all of them get an
            ``APIConnectionError``.
        retry_delay_base: seconds until the first retry; each further one waits twice as long.
        retry_delay_max: most seconds between two tries.
        jitter_factor: share of the wait, from 0 to 1, by which it is longer or shorter at random.
        enable_retry_logic: whether failed requests are retried.
        enable_stuck_detection: whether ``progress_timeout`` applies.
        retryable_exceptions: errors that are retried, besides failures of the engine
            (``InternalServerError``) and a full queue (``RateLimitError``).
    """

    max_connections: int | None = 1000
    progress_timeout: float = 120 * 60
    retry_delay_base: float = 0.5
    retry_delay_max: float = 10.0
    jitter_factor: float = 0.25
    enable_retry_logic: bool = True
    enable_stuck_detection: bool = True
    retryable_exceptions: tuple[type[Exception], ...] = (asyncio.TimeoutError, APIConnectionError)

    def __post_init__(self) -> None:
        if self.max_connections is not None and self.max_connections <= 0:
            raise ValueError(f"max_connections must be positive, got {self.max_connections}")

    def is_retryable(self, error: BaseException) -> bool:
        """Return whether a request that failed with ``error`` is retried."""
        if not self.enable_retry_logic:
            return False
        if isinstance(error, APIStatusError):
            return error.status_code in _RETRYABLE_STATUS
        return isinstance(error, self.retryable_exceptions)

    def delay(self, n_failed: int) -> float:
        """Return the seconds to wait after the ``n_failed``-th failure."""
        delay = min(self.retry_delay_base * 2.0 ** min(n_failed - 1, 64), self.retry_delay_max)
        return min(delay * (1 + self.jitter_factor * random.uniform(-1, 1)), self.retry_delay_max)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))


@dataclass(slots=True, eq=False)
class _Call:
    """A request; ``attempt`` is the future of the engine's present try."""

    request: Request
    n_failed: int = 0
    attempt: Future[Any] | None = None

    @property
    def future(self) -> Future[Any]:
        """The future that the caller holds."""
        return self.request.future


class Retrier:
    """Submits requests to an engine by the rules of a ``RetryConfig``.

    Args:
        config: the rules.
        submit: submits a request to the engine.
    """

    def __init__(self, config: RetryConfig, submit: Callable[[Request], None]) -> None:
        self._config, self._submit = config, submit
        self._lock = threading.RLock()
        self._waiting: deque[_Call] = deque()
        self._running: dict[_Call, None] = {}
        self._progress_at = 0.0
        self._watch: threading.Timer | None = None

    def submit(self, request: Request) -> None:
        """Accept a request; its future is resolved by the last try.

        Raises:
            RequestFailedError: the engine was closed.
        """
        call = _Call(request)
        when_done(request.future, partial(self._on_cancel, call))
        with self._lock:
            limit = self._config.max_connections
            if limit is not None and len(self._running) >= limit:
                self._waiting.append(call)
            else:
                self._begin(call)

    def _begin(self, call: _Call) -> None:
        if not self._running:
            self._progress_at = time.monotonic()
        self._running[call] = None  # before it is tried, since it may be over at once
        try:
            self._try(call)
        except TinkerError:
            self._running.pop(call, None)
            raise
        if self._config.enable_stuck_detection and self._watch is None:
            self._watch_in(self._config.progress_timeout)

    def _try(self, call: _Call) -> None:
        attempt: APIFuture[Any] = APIFuture()
        call.attempt = attempt
        try:
            self._submit(replace(call.request, future=attempt))
        except RateLimitError as error:
            attempt.set_exception(error)
        when_done(attempt, partial(self._on_done, call))

    def _try_again(self, call: _Call) -> None:
        with self._lock:
            if call not in self._running:
                return
            try:
                self._try(call)
                return
            except TinkerError as failure:
                error = failure
        self._end(call, error=error)

    def _on_done(self, call: _Call, attempt: Future[Any]) -> None:
        if attempt.cancelled():
            return  # the caller's future was, or everything stood still
        error = attempt.exception()
        if error is None:
            self._end(call, attempt.result())
        elif self._config.is_retryable(error):
            call.n_failed += 1
            _later(self._config.delay(call.n_failed), self._try_again, call)
        else:
            self._end(call, error=error)

    def _on_cancel(self, call: _Call, future: Future[Any]) -> None:
        if not future.cancelled():
            return
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
                self._running[call] = None  # for a moment, to be ended
        self._end(call)
        if call.attempt is not None:
            call.attempt.cancel()

    def _end(self, call: _Call, result: Any = None, error: BaseException | None = None) -> None:
        """Resolve a call once, and begin waiting ones; callbacks run without the lock."""
        failed = list[tuple[_Call, TinkerError]]()
        with self._lock:
            if call not in self._running:
                return
            del self._running[call]
            self._progress_at = time.monotonic()
            while self._waiting and len(self._running) < (self._config.max_connections or 0):
                following = self._waiting.popleft()
                try:
                    self._begin(following)
                except TinkerError as failure:
                    failed.append((following, failure))
        _resolve(call.future, result, error)
        for other, reason in failed:
            _resolve(other.future, error=reason)

    # -- no progress ----------------------------------------------------------------------------

    def _watch_in(self, seconds: float) -> None:
        self._watch = _later(seconds, self._look)

    def _look(self) -> None:
        with self._lock:
            self._watch = None
            if not self._running:
                return
            left = self._progress_at + self._config.progress_timeout - time.monotonic()
            if left > 0:
                self._watch_in(left)
                return
            stuck = [*self._running, *self._waiting]
            self._running.clear()
            self._waiting.clear()
        for call in stuck:
            _resolve(
                call.future,
                error=APIConnectionError(
                    f"No progress made in {self._config.progress_timeout}s. Requests appear to be stuck."
                ),
            )
            if call.attempt is not None:
                call.attempt.cancel()


def _later(seconds: float, function: Callable[..., None], *arguments: Any) -> threading.Timer:
    timer = threading.Timer(max(0.0, seconds), function, arguments)
    timer.daemon = True
    timer.start()
    return timer


def _resolve(future: Future[Any], result: Any = None, error: BaseException | None = None) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


__all__ = ["Retrier", "RetryConfig"]
