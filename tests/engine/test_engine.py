"""The life of an engine: cancelling, closing, leaving the interpreter, decode failures."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.random_model import Shape, write_random_model
from tinker_local import (
    InternalServerError,
    ModelInput,
    RequestFailedError,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)
from tinker_local.llama.context import DecodeError

ROOT = Path(__file__).resolve().parents[2]
PROMPT = ModelInput.from_ints(list(range(1000, 1040)))
LONG = SamplingParams(max_tokens=300, stop=[])
SHORT = SamplingParams(max_tokens=2, stop=[])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is opened in a moment, and takes seconds for what must be in flight."""
    shape = Shape(n_vocab=1100, n_embd=256, n_ff=512)
    return write_random_model(tmp_path_factory.mktemp("models") / "small.gguf", shape=shape)


@pytest.fixture
def own_service() -> Iterator[ServiceClient]:
    with ServiceClient(n_ctx=1024) as service:
        yield service


@pytest.fixture
def own_client(own_service: ServiceClient, path: Path) -> SamplingClient:
    return own_service.create_sampling_client(base_model=str(path))


def wait_until_running(client: SamplingClient) -> None:
    for _ in range(1000):
        if client._engine._loop._scheduler._running:
            return
        time.sleep(0.005)
    raise AssertionError("nothing runs")


def test_cancelling_frees_room_for_those_who_wait(own_client: SamplingClient) -> None:
    """Two prompts that do not fit the cache together."""
    hog = own_client.sample(ModelInput.from_ints(list(range(500, 1100))), 1, LONG)
    waiting = own_client.sample(ModelInput.from_ints(list(range(500))), 1, SHORT)
    wait_until_running(own_client)
    assert not waiting.done()
    assert hog.cancel()
    assert len(waiting.result(timeout=30).sequences[0].tokens) == 2
    with pytest.raises(concurrent.futures.CancelledError):
        hog.result()


def test_as_completed_sees_cancelled_futures(own_client: SamplingClient) -> None:
    futures = [own_client.sample(PROMPT, 2, LONG) for _ in range(6)]
    for future in futures:
        assert future.cancel()
    assert len(list(concurrent.futures.as_completed(futures, timeout=30))) == 6


def test_closing_ends_what_is_in_flight(own_service: ServiceClient, own_client: SamplingClient) -> None:
    futures = [own_client.sample(PROMPT, 1, LONG) for _ in range(5)]
    wait_until_running(own_client)
    own_service.close()
    own_service.close()
    for future in futures:
        with pytest.raises(RequestFailedError, match="closed"):
            future.result(timeout=30)
    with pytest.raises(RequestFailedError, match="closed"):
        own_client.sample(PROMPT, 1, SHORT)
    with pytest.raises(RequestFailedError, match="closed"):
        own_service.create_sampling_client(base_model="SmolLM2-135M-Instruct")


def test_a_future_keeps_its_engine_alive(path: Path) -> None:
    future = ServiceClient(n_ctx=512).create_sampling_client(base_model=str(path)).sample(PROMPT, 1, SHORT)
    gc.collect()
    assert len(future.result(timeout=30).sequences[0].tokens) == 2


def test_an_engine_nobody_uses_is_freed(path: Path) -> None:
    client = ServiceClient(n_ctx=512).create_sampling_client(base_model=str(path))
    client.sample(PROMPT, 1, SHORT).result()
    engine, context = weakref.ref(client._engine), client._engine._loop._context
    del client
    for _ in range(200):
        gc.collect()
        if engine() is None and not context.close.alive:
            return
        time.sleep(0.02)
    raise AssertionError("the engine is still there")


def test_a_failed_decode_ends_only_its_own_requests(
    own_client: SamplingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = own_client._engine._loop._context
    decode, calls = context.decode, []

    def fail_once(n_tokens: int) -> None:
        calls.append(n_tokens)
        if len(calls) == 3:
            raise DecodeError(-3)
        decode(n_tokens)

    monkeypatch.setattr(context, "decode", fail_once)
    failing = own_client.sample(PROMPT, 4, LONG)
    with pytest.raises(InternalServerError, match="-3"):
        failing.result(timeout=30)
    after = own_client.sample(PROMPT, 1, SHORT).result(timeout=30)
    assert len(after.sequences[0].tokens) == 2


def test_logits_that_are_no_distribution(
    own_client: SamplingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = own_client._engine._loop._context
    bad = np.full((64, context.model.n_vocab), np.nan, np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(context, "logits", lambda n_rows: bad[:n_rows])
        with pytest.raises(InternalServerError, match=r"row 0 .* NaN"):
            own_client.sample(PROMPT, 1, SHORT).result(timeout=30)
        with pytest.raises(InternalServerError, match=r"row 0 .* NaN"):
            own_client.compute_logprobs(PROMPT).result(timeout=30)
    assert own_client.sample(PROMPT, 1, SHORT).result(timeout=30)


def test_an_exception_in_a_callback_hurts_nobody(own_client: SamplingClient) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("in a user's callback")

    future = own_client.sample(PROMPT, 1, SHORT)
    future.add_done_callback(fail)
    assert future.result(timeout=30)
    assert own_client.sample(PROMPT, 1, SHORT).result(timeout=30)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_is_told(own_client: SamplingClient) -> None:
    pid = os.fork()
    if pid == 0:  # only _exit from here on: this is a copy of pytest
        try:
            own_client.sample(PROMPT, 1, SHORT)
        except RequestFailedError as error:
            os._exit(0 if "forked" in str(error) else 2)
        except BaseException:
            os._exit(3)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


LEAVING = """
import sys, threading
import tinker_local as tinker
service = tinker.ServiceClient(n_ctx=2048)
client = service.create_sampling_client(base_model=sys.argv[1])
prompt = tinker.ModelInput.from_ints(list(range(1000, 1100)))
params = tinker.SamplingParams(max_tokens=1500, stop=[])
futures = [client.compute_logprobs(prompt) for _ in range(20)]
futures += [client.sample(prompt, 1, params) for _ in range(4)]
{ending}
"""
ENDINGS = {
    "falls off the end": "",
    "sys.exit": "sys.exit(0)",
    "waits a little": "import time; time.sleep(0.3)",
    "names deleted": "del service, client, futures",
    "another thread waits": "threading.Thread(target=futures[19].result).start()",
    "cancels late": "import atexit; atexit.register(futures[-1].cancel)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_leaving_the_interpreter_with_work_in_flight(ending: str, path: Path) -> None:
    script = LEAVING.format(ending=ENDINGS[ending])
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
