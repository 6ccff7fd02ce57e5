"""The table of requests: what is kept, for how long, and what is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from tinker_local import RateLimitError, RequestFailedError, SampledSequence, SampleResponse
from tinker_local.serve.served_models import ModelName
from tinker_local.serve.tinker_api.futures import Futures, Patience
from tinker_local.serve.tinker_api.ids import CLONE, SamplingSession, request_id

SESSION = SamplingSession("s", 0, ModelName("Me/Tiny")).id
QUICK = Patience(poll=0.02, first_poll=0.01, abandoned=0.0, delivered=0.0, undelivered=0.0)


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


def answer(n_tokens: int = 1) -> SampleResponse:
    return SampleResponse([SampledSequence("stop", "", np.zeros(n_tokens, np.int32))])


def a_request(number: int = 0) -> str:
    return request_id(SESSION, number)


@in_a_loop
async def test_what_nobody_asks_for_is_cancelled() -> None:
    futures, future = Futures(QUICK), Future[SampleResponse]()
    entry = futures.add(a_request(), 1, future)
    assert not await futures.wait(entry, None)
    waiting = asyncio.create_task(futures.wait(entry, None))
    await asyncio.sleep(0)
    futures.sweep()
    assert not future.cancelled()  # somebody waits
    await waiting
    futures.sweep()
    assert future.cancelled()
    assert futures.find(a_request()) is None


@in_a_loop
async def test_a_client_that_polls_for_all_its_requests_has_them_kept() -> None:
    futures = Futures(Patience(poll=0.01, abandoned=60.0))
    entry = futures.add(a_request(CLONE), 1, Future())
    entry.seen_at -= 100
    assert not await futures.wait_for_any((SESSION, 1), 0, 0)
    futures.sweep()
    assert futures.find(entry.id) is entry
    assert not await futures.wait_for_any((SESSION, 0), 0, 0)
    futures._polled.pop((SESSION, 1))
    futures.sweep()
    assert futures.find(entry.id) is None


@in_a_loop
async def test_answers_are_kept_for_a_while() -> None:
    futures = Futures(Patience(delivered=10, undelivered=100))
    sent, unsent = (futures.add(a_request(i), 1, done(answer())) for i in range(2))
    assert await futures.wait(sent, None)
    assert await futures.wait(unsent, None)
    sent.was_delivered = True
    for entry in (sent, unsent):
        entry.seen_at -= 50
    futures.sweep()
    assert futures.find(sent.id) is None
    assert futures.find(unsent.id) is unsent
    unsent.seen_at -= 60
    futures.sweep()
    assert (len(futures), futures._n_answer_bytes, futures._finished) == (0, 0, {})


@in_a_loop
async def test_memory_for_answers_is_bounded() -> None:
    futures = Futures(Patience(bytes=100_000))
    for number in range(50):  # 8 KB each
        entry = futures.add(a_request(number), 1, done(answer(2000)))
        await futures.wait(entry, None)
        entry.was_delivered = number % 2 == 0
        assert futures._n_answer_bytes <= 100_000
    kept = [number for number in range(50) if futures.find(a_request(number))]
    assert kept[-1] == 49
    assert sum(number % 2 for number in kept) > len(kept) / 2  # those that were sent went first


@in_a_loop
async def test_requests_that_wait_for_a_model_are_bounded() -> None:
    futures = Futures(Patience(loading_bytes=100, requests=2))
    may_load = asyncio.Event()

    async def start() -> Future[SampleResponse]:
        await may_load.wait()
        return done(answer())

    entry = futures.add_loading(a_request(0), 1, 60, start)
    with pytest.raises(RateLimitError, match="wait for a model"):
        futures.add_loading(a_request(1), 1, 60, start)
    may_load.set()
    assert await futures.wait(entry, "paused_capacity")
    assert futures.find(a_request(1)) is None
    futures.add_loading(a_request(2), 1, 100, start)
    futures.add(a_request(3), 1, Future())
    with pytest.raises(RateLimitError, match="2 requests are unfinished"):
        futures.check_room()


@in_a_loop
async def test_a_full_queue_is_tried_again_once_the_model_is_open() -> None:
    futures, n_tried = Futures(), 0

    async def start() -> Future[SampleResponse]:
        nonlocal n_tried
        n_tried += 1
        if n_tried == 1:
            raise RateLimitError("full")
        return done(answer())

    assert await futures.wait(futures.add_loading(a_request(), 1, 1, start), None)
    assert n_tried == 2


@in_a_loop
async def test_a_closed_client_is_said() -> None:
    futures, future = Futures(), Future[SampleResponse]()
    entry = futures.add(a_request(), 1, future)
    future.set_exception(RequestFailedError("the client was closed"))
    assert await futures.wait(entry, None)
    assert entry.error == ("the client was closed", "user")


@in_a_loop
async def test_completions_come_after_their_cursor() -> None:
    futures = Futures(Patience(poll=5.0))
    first, second = Future[SampleResponse](), Future[SampleResponse]()
    for number, future in enumerate((first, second)):
        futures.add(a_request(number), 1, future)
    waiting = asyncio.create_task(futures.wait_for_any((SESSION, 0), 0, 5.0))
    await asyncio.sleep(0.01)
    second.set_result(answer())
    (found,) = await waiting
    assert found.id == a_request(1)
    first.set_result(answer())
    (later,) = await futures.wait_for_any((SESSION, 0), found.number, 5.0)
    assert later.id == a_request(0)
    assert later.number > found.number > 10**15  # a new server's are larger
    futures.forget([found.id, "unknown"])
    assert await futures.wait_for_any((SESSION, 0), 0, 0) == [later]


@in_a_loop
async def test_a_client_hears_of_the_queue_once() -> None:
    futures = Futures(Patience(poll=30.0, first_poll=0.01))
    entries = [futures.add(a_request(i), 1, Future()) for i in range(2)]
    assert not await futures.wait(entries[0], "paused_capacity")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await futures.wait(entries[1], "paused_capacity")
    assert [entry.n_waiting for entry in entries] == [0, 0]


def done(response: SampleResponse) -> Future[SampleResponse]:
    future = Future[SampleResponse]()
    future.set_result(response)
    return future
