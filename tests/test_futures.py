"""APIFuture alone, without a model."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import tracemalloc

import pytest

from tinker_local import APIFuture


def resolve_later(future: APIFuture[int], value: int, delay: float = 0.02) -> None:
    threading.Timer(delay, future.set_result, [value]).start()


def test_blocks_until_there_is_a_result() -> None:
    future: APIFuture[int] = APIFuture()
    resolve_later(future, 7)
    assert future.result(timeout=5) == 7
    assert future.future() is future


def test_is_a_future_to_the_standard_library() -> None:
    futures: list[APIFuture[int]] = [APIFuture() for _ in range(3)]
    for i, future in enumerate(futures):
        resolve_later(future, i, 0.01 * (3 - i))
    done = [f.result() for f in concurrent.futures.as_completed(futures, timeout=5)]
    assert sorted(done) == [0, 1, 2]
    assert not concurrent.futures.wait(futures, timeout=5).not_done


def test_can_be_awaited_from_several_loops() -> None:
    future: APIFuture[int] = APIFuture()
    resolve_later(future, 9, 0.05)
    results: list[int] = []

    async def wait() -> None:
        results.append(await future)
        results.append(await future.coroutine())
        results.append(await future.result_async(timeout=1))

    threads = [threading.Thread(target=asyncio.run, args=(wait(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [9] * 9


def test_a_timeout_leaves_the_request_running() -> None:
    future: APIFuture[int] = APIFuture()
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)

    async def wait() -> int:
        with pytest.raises(TimeoutError):
            await future.result_async(timeout=0.01)
        assert not future.cancelled()
        resolve_later(future, 3)
        return await future

    assert asyncio.run(wait()) == 3


@pytest.mark.parametrize("method", ["await", "result_async", "coroutine"])
def test_cancelling_the_task_cancels_the_request(method: str) -> None:
    future: APIFuture[int] = APIFuture()

    async def wait() -> int:
        if method == "await":
            return await future
        return await getattr(future, method)()

    async def main() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert future.cancelled()


def test_cancelling_what_waits_and_what_is_over() -> None:
    waiting: APIFuture[int] = APIFuture()
    over: APIFuture[int] = APIFuture()
    told: list[APIFuture[int]] = []
    waiting.add_done_callback(told.append)  # type: ignore[arg-type]
    over.set_result(5)
    assert waiting.cancel()
    assert waiting.cancel(), "a second time changes nothing"
    assert told == [waiting]
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result(timeout=1)
    for wait in (waiting.coroutine, waiting.result_async):
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(wait())
    assert not over.cancel()
    over.add_done_callback(told.append)  # type: ignore[arg-type]
    assert told == [waiting, over], "at once, since it is over"
    assert asyncio.run(over.result_async(timeout=1)) == over.result() == 5


def test_cancelling_reaches_other_loops_and_threads() -> None:
    future: APIFuture[int] = APIFuture()
    seen: list[str] = []

    async def wait() -> None:
        try:
            await future
        except asyncio.CancelledError:
            seen.append("loop")

    def block() -> None:
        try:
            future.result(timeout=10)
        except concurrent.futures.CancelledError:
            seen.append("thread")

    threads = [threading.Thread(target=asyncio.run, args=(wait(),)) for _ in range(2)]
    threads.append(threading.Thread(target=block))
    for thread in threads:
        thread.start()
    while len(future._done_callbacks) < 2:  # type: ignore[attr-defined]
        threading.Event().wait(0.005)
    assert future.cancel()
    for thread in threads:
        thread.join(timeout=10)
    assert sorted(seen) == ["loop", "loop", "thread"]


def test_errors_reach_those_who_wait() -> None:
    future: APIFuture[int] = APIFuture()
    future.set_exception(ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        asyncio.run(future.result_async())


def test_a_future_is_small() -> None:
    tracemalloc.start()
    futures: list[APIFuture[int]] = [APIFuture() for _ in range(1000)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / len(futures) < 700  # 393; a concurrent Future takes 1,600


def test_many_threads_wait_for_one_future() -> None:
    for _ in range(200):
        future: APIFuture[int] = APIFuture()
        results: list[int] = []
        threads = [
            threading.Thread(target=lambda f=future, r=results: r.append(f.result(9))) for _ in range(4)
        ]  # type: ignore[misc]
        for thread in threads:
            thread.start()
        future.set_result(5)
        for thread in threads:
            thread.join()
        assert results == [5] * 4
