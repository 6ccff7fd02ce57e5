"""Callbacks that block, of every kind, hold up nothing but themselves."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.random_model import Shape, write_random_model
from tinker_local import (
    APIFuture,
    InternalServerError,
    ModelInput,
    QueueState,
    RetryConfig,
    SamplingClient,
    SamplingParams,
    ServiceClient,
    callbacks,
)
from tinker_local.callbacks import CallbackThreads, InOrder, name_of

PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=4, temperature=0.0, stop=[])
LONGER = SamplingParams(max_tokens=60, temperature=0.0, stop=[])
"""Time enough to add callbacks before the end."""
N_BLOCKING = 40
"""More than there are threads for callbacks."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", shape=Shape(n_layer=1))


@pytest.fixture
def client(path: Path) -> Iterator[SamplingClient]:
    with ServiceClient(n_ctx=256, n_threads=1) as service:
        yield service.create_sampling_client(base_model=str(path))


class Gate:
    """A function that blocks whoever calls it, until it is opened."""

    def __init__(self) -> None:
        self.opened, self.n_inside = threading.Event(), 0

    def block(self, *_: object) -> None:
        self.n_inside += 1
        self.opened.wait(60)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Callbacks run on threads that no other test has."""
    own = CallbackThreads()
    monkeypatch.setattr(callbacks, "threads", lambda: own)
    monkeypatch.setattr("tinker_local.futures.threads", lambda: own)
    gate = Gate()
    yield gate
    gate.opened.set()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_callbacks_of_futures(client: SamplingClient, gate: Gate) -> None:
    """Their own results are there, and so are all later ones, however they are waited for."""
    blocked = [client.sample(PROMPT, 1, LONGER) for _ in range(N_BLOCKING)]
    for future in blocked:
        future.add_done_callback(gate.block)
    assert all(future.result(60).sequences for future in blocked)
    wait_for(lambda: gate.n_inside == callbacks.MOST_THREADS)
    assert client.compute_logprobs(PROMPT).result(60)
    later = [client.sample(PROMPT, 1, PARAMS) for _ in range(3)]
    assert len(list(concurrent.futures.as_completed(later, timeout=60))) == 3
    assert not concurrent.futures.wait(later, timeout=60).not_done
    assert asyncio.run(client.sample_async(PROMPT, 1, PARAMS)).sequences

    async def wait() -> Any:
        return await asyncio.wrap_future(client.sample(PROMPT, 1, PARAMS))

    assert asyncio.run(wait()).sequences
    assert client.get_telemetry().counters.finished == N_BLOCKING + 6
    gate.opened.set()
    wait_for(lambda: gate.n_inside == N_BLOCKING)


def test_callbacks_of_tokens(client: SamplingClient, gate: Gate) -> None:
    """The result of their request comes after its tokens; all others come as usual."""
    blocked = [client.sample(PROMPT, 1, PARAMS, on_token=gate.block) for _ in range(N_BLOCKING)]
    assert client.sample(PROMPT, 2, PARAMS).result(60).sequences[1].tokens
    assert not any(future.done() for future in blocked)
    gate.opened.set()
    assert all(len(future.result(60).sequences[0].tokens) == 4 for future in blocked)
    assert gate.n_inside == 4 * N_BLOCKING


def test_closing_does_not_wait_for_callbacks(path: Path, gate: Gate) -> None:
    service = ServiceClient(n_ctx=256, n_threads=1)
    client = service.create_sampling_client(base_model=str(path))
    params = SamplingParams(max_tokens=250, temperature=0.0, stop=[])
    future = client.sample(PROMPT, 1, params, on_token=gate.block)
    wait_for(lambda: gate.n_inside == 1)
    service.close()
    if not future.cancel():
        future.exception(60)
    assert gate.n_inside == 1


def test_observers_of_the_queue(client: SamplingClient, gate: Gate, path: Path) -> None:
    class Blocking(SamplingClient):
        def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
            gate.block()

    slow = [Blocking(client._engine, client.options, client.weights) for _ in range(6)]
    for _ in range(2):
        waiting = [client.sample(PROMPT, 8, PARAMS) for _ in range(20)]
        assert all(len(future.result(60).sequences) == 8 for future in waiting)
    wait_for(lambda: gate.n_inside >= len(slow))
    assert gate.n_inside == len(slow), "each is told of one change at a time"


def test_retries(client: SamplingClient, gate: Gate) -> None:
    """A client that retries begins its next requests, whatever callbacks of the last ones do."""
    service = ServiceClient(n_ctx=256, n_threads=1)
    own = service.create_sampling_client(
        base_model=str(client.weights.path), retry_config=RetryConfig(max_connections=1)
    )
    futures = [own.sample(PROMPT, 1, LONGER) for _ in range(N_BLOCKING)]
    for future in futures:
        future.add_done_callback(gate.block)
    assert all(future.result(60).sequences for future in futures)
    service.close()


def test_the_order_of_tokens_and_the_result(client: SamplingClient) -> None:
    told: list[object] = []
    future = client.sample(PROMPT, 1, LONGER, on_token=lambda _, token: told.append(token))
    future.add_done_callback(lambda done: told.append(done.result().sequences[0].stop_reason))
    future.add_done_callback(lambda _: told.append("second"))
    wait_for(lambda: len(told) == 62)
    assert told == [*future.result().sequences[0].tokens, "length", "second"]


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_an_error_at_any_token(client: SamplingClient, n: int, error: type[BaseException]) -> None:
    """Also at the last one, when the engine is done already."""
    told: list[int] = []

    def fail(_: int, token: int) -> None:
        told.append(token)
        if len(told) == n:
            raise error("in a callback of a user")

    with pytest.raises(InternalServerError, match="in a callback of a user"):
        client.sample(PROMPT, 1, PARAMS, on_token=fail).result(60)
    assert len(told) == n
    assert client.sample(PROMPT, 1, PARAMS).result(60)


def test_a_callback_that_is_added_late_or_to_a_cancelled_future() -> None:
    """As in the standard library: at once, in the thread that adds it or cancels."""
    seen: list[tuple[str, int]] = []

    def note(name: str, _: object) -> None:
        seen.append((name, threading.get_ident()))

    done, cancelled = APIFuture[int](), APIFuture[int]()
    done.set_result(1)
    done.add_done_callback(partial(note, "late"))
    cancelled.add_done_callback(partial(note, "cancelled"))
    cancelled.cancel()
    here = threading.get_ident()
    assert seen == [("late", here), ("cancelled", here)]


def test_errors_are_logged_and_the_next_callback_comes(caplog: pytest.LogCaptureFixture) -> None:
    future, called = APIFuture[int](), threading.Event()

    def fail(_: object) -> None:
        raise ValueError("no")

    future.add_done_callback(fail)
    future.add_done_callback(lambda _: called.set())
    future.set_result(1)
    assert called.wait(60)
    assert "fail (" in caplog.text
    assert "ValueError: no" in caplog.text


def test_what_blocks_is_named(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "LONG", 0.02)
    threads, gate, done = CallbackThreads(2), Gate(), threading.Event()
    with caplog.at_level(logging.WARNING, logger="tinker_local.callbacks"):
        for _ in range(2):
            threads.run(gate.block, gate.block)
        threads.run(done.set, done.set)
        wait_for(lambda: "Gate.block" in caplog.text)
    assert "2 callbacks are running" in caplog.text
    assert "1 others wait" in caplog.text
    assert f"({__file__}:" in caplog.text
    assert not done.is_set()
    gate.opened.set()
    assert done.wait(60)


def test_quick_callbacks_are_no_reason_to_warn(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "LONG", 0.02)
    threads, seen = CallbackThreads(2), list[int]()
    for n in range(200):
        threads.run(partial(seen.append, n), seen.append)
    wait_for(lambda: len(seen) == 200)
    time.sleep(0.05)
    assert not caplog.text


def test_calls_in_order() -> None:
    seen: list[int] = []
    calls = InOrder(seen.append)
    for n in range(500):
        calls.call(n)
    ended = threading.Event()
    calls.then(ended.set)
    assert ended.wait(60)
    assert seen == list(range(500))


def test_names() -> None:
    assert name_of(Gate.block).startswith(f"Gate.block ({__file__}:")
    assert name_of(partial(partial(Gate().block), 1)).startswith("Gate.block (")
    assert name_of(Gate) == "Gate"
    assert name_of([].append) == "list.append"
