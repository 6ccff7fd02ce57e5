"""RetryConfig: how many at once, what is tried again, and when waiting ends. No model is needed."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

import numpy as np
import pytest

from tinker_local import APIConnectionError, APIFuture, BadRequestError, InternalServerError, RetryConfig
from tinker_local.engine.request import Request
from tinker_local.errors import RequestFailedError
from tinker_local.retry import Retrier

QUICK = {"retry_delay_base": 0.001, "retry_delay_max": 0.002}


class Engine:
    """Takes requests and answers when told."""

    def __init__(self) -> None:
        self.tries: list[Request] = []
        self.arrived = threading.Condition()
        self.closed = False

    def submit(self, request: Request) -> None:
        if self.closed:
            raise RequestFailedError("closed")
        with self.arrived:
            self.tries.append(request)
            self.arrived.notify_all()

    def wait_for(self, n: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.tries) >= n, timeout=20)


class Client:
    def __init__(self, **config: Any) -> None:
        self.engine = Engine()
        self.retrier = Retrier(RetryConfig(**config), self.engine.submit)

    def ask(self) -> APIFuture[int]:
        future: APIFuture[int] = APIFuture()
        self.retrier.submit(Request(np.zeros(1, np.int32), future, lambda outcome: outcome))
        return future


def test_failures_of_the_engine_are_tried_again() -> None:
    client = Client(**QUICK)
    future = client.ask()
    for n in range(3):
        client.engine.wait_for(n + 1)
        client.engine.tries[n].future.set_exception(InternalServerError("decode failed"))
    client.engine.wait_for(4)
    assert not future.done()
    client.engine.tries[3].future.set_result(7)
    assert future.result(timeout=20) == 7


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({}, BadRequestError("wrong")),
        ({}, RequestFailedError("closed")),
        ({}, KeyError("x")),
        ({"enable_retry_logic": False}, InternalServerError("decode failed")),
    ],
)
def test_what_is_not_tried_again(config: dict[str, Any], error: Exception) -> None:
    client = Client(**QUICK, **config)
    future = client.ask()
    client.engine.tries[0].future.set_exception(error)
    assert future.exception(timeout=20) is error
    assert len(client.engine.tries) == 1


def test_other_errors_can_be_named() -> None:
    client = Client(**QUICK, retryable_exceptions=(KeyError,))
    future = client.ask()
    client.engine.tries[0].future.set_exception(KeyError("x"))
    client.engine.wait_for(2)
    client.engine.tries[1].future.set_result(1)
    assert future.result(timeout=20) == 1


def test_a_limit_of_requests_at_a_time() -> None:
    client = Client(max_connections=2)
    futures = [client.ask() for _ in range(5)]
    assert len(client.engine.tries) == 2
    assert futures[3].cancel()
    assert concurrent.futures.wait(futures[3:4], timeout=20).done
    for n in range(4):
        client.engine.wait_for(n + 1)
        client.engine.tries[n].future.set_result(n)
    assert [f.result(20) for f in futures if not f.cancelled()] == [0, 1, 2, 3]


def test_no_limit() -> None:
    client = Client(max_connections=None)
    futures = [client.ask() for _ in range(2000)]
    assert len(client.engine.tries) == 2000
    for request in client.engine.tries:
        request.future.set_result(0)
    assert concurrent.futures.wait(futures, timeout=20).not_done == set()


def test_cancelling_reaches_the_engine_and_makes_room() -> None:
    client = Client(max_connections=1)
    first, second = client.ask(), client.ask()
    assert first.cancel()
    assert client.engine.tries[0].future.cancelled()
    client.engine.wait_for(2)
    client.engine.tries[1].future.set_result(2)
    assert second.result(timeout=20) == 2
    assert set(concurrent.futures.as_completed([first, second], timeout=20)) == {first, second}


def test_standing_still_ends() -> None:
    client = Client(max_connections=1, progress_timeout=0.05)
    futures = [client.ask(), client.ask()]
    for future in futures:
        with pytest.raises(APIConnectionError, match=r"No progress made in 0\.05s"):
            future.result(timeout=20)
    assert client.engine.tries[0].future.cancelled()


def test_without_detection_it_does_not() -> None:
    client = Client(progress_timeout=0.01, enable_stuck_detection=False)
    future = client.ask()
    with pytest.raises(TimeoutError):
        future.result(timeout=0.1)
    client.engine.tries[0].future.set_result(1)
    assert future.result(timeout=20) == 1


def test_progress_puts_the_end_off() -> None:
    """Each end of a request sets the time anew, which is looked at when it is over."""
    client = Client(progress_timeout=3600)
    slow, quick = client.ask(), client.ask()
    began = client.retrier._progress_at
    client.engine.tries[1].future.set_result(2)
    assert quick.result(20) == 2
    assert client.retrier._progress_at > began
    client.retrier._look()
    assert not slow.done()
    client.retrier._progress_at -= 3600
    client.retrier._look()
    with pytest.raises(APIConnectionError):
        slow.result(timeout=20)


def test_a_closed_engine_is_said_at_once_and_to_those_that_wait() -> None:
    client = Client(max_connections=1)
    first, second = client.ask(), client.ask()
    client.engine.closed = True
    client.engine.tries[0].future.set_result(1)
    assert first.result(20) == 1
    with pytest.raises(RequestFailedError):
        second.result(timeout=20)
    with pytest.raises(RequestFailedError):
        client.ask()


def test_callbacks_may_ask_again() -> None:
    client = Client(max_connections=1)
    first = client.ask()
    more: list[APIFuture[int]] = []
    first.add_done_callback(lambda _: more.append(client.ask()))
    client.engine.tries[0].future.set_result(1)
    client.engine.wait_for(2)
    client.engine.tries[1].future.set_result(2)
    assert more[0].result(20) == 2


def test_delays() -> None:
    config = RetryConfig(retry_delay_base=1, retry_delay_max=5, jitter_factor=0)
    assert [config.delay(n) for n in (1, 2, 3, 4, 10_000)] == [1, 2, 4, 5, 5]
    config = RetryConfig(retry_delay_base=1, retry_delay_max=5)
    assert all(0.75 <= config.delay(1) <= 1.25 for _ in range(100))
    assert all(config.delay(9) <= 5 for _ in range(100))
    assert hash(RetryConfig()) == hash(RetryConfig())
    with pytest.raises(ValueError, match="max_connections must be positive, got 0"):
        RetryConfig(max_connections=0)
