"""track, and Ctrl-C while waiting for a model."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.long import few
from tests.random_model import Shape, write_random_model
from tinker_local import (
    APIFuture,
    ModelInput,
    SampledSequence,
    SampleResponse,
    SamplingParams,
    ServiceClient,
    progress,
    track,
)

ROOT = Path(__file__).resolve().parents[1]
RESPONSE = SampleResponse(
    [
        SampledSequence("stop", "a", tokens_np=np.zeros(20, np.int32)),
        SampledSequence("length", "b", tokens_np=np.zeros(5, np.int32)),
    ],
    prompt_logprobs_np=np.zeros(7, np.float32),
)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal on standard error would get."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(progress, "_console", lambda: console)
    return screen


def resolved(result: Any) -> APIFuture[Any]:
    future: APIFuture[Any] = APIFuture()
    future.set_result(result)
    return future


def test_yields_each_future_as_it_finishes() -> None:
    futures: list[APIFuture[int]] = [APIFuture() for _ in range(4)]
    following = track([*futures, futures[0]])
    futures[2].set_result(2)
    assert next(following) is futures[2]
    threading.Timer(0.3, futures[0].set_exception, [ValueError("x")]).start()
    assert next(following) is futures[0]
    assert futures[3].cancel()
    assert next(following) is futures[3]
    futures[1].set_result(1)
    assert list(following) == [futures[1]]


def test_takes_any_iterable_of_concurrent_futures() -> None:
    assert list(track([])) == []
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(pow, n, 2) for n in range(10)]
        assert sorted(f.result() for f in track(f for f in futures)) == [n * n for n in range(10)]


def test_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match="futures holds a int"):
        list(track([1]))  # type: ignore[type-var]


def test_follows_requests(small: Path) -> None:
    client = ServiceClient(n_ctx=256).create_sampling_client(base_model=str(small))
    prompt = ModelInput.from_ints(list(range(1000, 1040)))
    futures: list[APIFuture[Any]] = [
        *(client.sample(prompt, 1, SamplingParams(max_tokens=n)) for n in range(1, 6)),
        client.compute_logprobs(prompt),
    ]
    assert set(track(futures)) == set(futures)
    assert all(future.result() for future in futures)


def test_a_hundred_thousand_futures_are_no_burden() -> None:
    futures: list[Future[int]] = [Future() for _ in range(100_000)]
    following, start = track(futures, disable=True), time.process_time()
    futures[-1].set_result(0)
    assert next(following) is futures[-1]
    for future in futures[:-1]:
        future.set_result(0)
    assert list(following) == futures[:-1]
    assert time.process_time() - start < 10  # about 0.5


def test_waiting_costs_nothing() -> None:
    futures: list[Future[int]] = [Future() for _ in range(20_000)]
    threading.Timer(1.0, lambda: [future.set_result(0) for future in futures]).start()
    following = track(futures, disable=True)
    start = time.thread_time()
    next(following)
    assert time.thread_time() - start < 0.5  # about 0.02, for the callbacks
    list(following)


def test_the_bar(terminal: io.StringIO) -> None:
    futures: list[APIFuture[Any]] = [resolved(RESPONSE), APIFuture(), APIFuture(), APIFuture()]
    following = track(futures, "[val] {0}")
    next(following)
    futures[1].set_result(RESPONSE)
    futures[2].cancel()
    next(following), next(following)
    assert "4/4" not in terminal.getvalue()
    time.sleep(0.2)
    futures[3].set_exception(ValueError())
    assert next(following, None) is futures[3]
    assert next(following, None) is None
    last = terminal.getvalue().rpartition("[val] {0}")[2]
    assert "4/4" in last
    assert "tokens/s" in last


def test_tokens_that_are_counted() -> None:
    assert progress._n_tokens(resolved(RESPONSE)) == 20 + 5 + 7
    assert progress._n_tokens(resolved([None, -1.0, -2.0])) == 3
    assert progress._n_tokens(resolved("text")) == 0


def test_no_bar_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    list(track([resolved(RESPONSE)]))
    assert capfd.readouterr() == ("", "")


def test_the_bar_is_closed_when_the_loop_is_left(terminal: io.StringIO) -> None:
    futures = [resolved(1), resolved(2), APIFuture()]
    for _ in track(futures):
        break
    assert terminal.getvalue().endswith("\x1b[?25h")  # the cursor is back
    assert not futures[2].cancelled()


def test_an_interrupted_iterable_is_cancelled_too() -> None:
    futures: list[APIFuture[int]] = [APIFuture() for _ in range(3)]

    def submit() -> Iterator[APIFuture[int]]:
        yield from futures
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(track(submit()))
    assert all(future.cancelled() for future in futures)


def test_importing_us_does_not_import_rich() -> None:
    script = "import sys, tinker_local; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


WAITING = """
import asyncio, concurrent.futures, sys
import tinker_local as tinker
from tinker_local import track

client = tinker.ServiceClient(n_ctx=8192).create_sampling_client(base_model=sys.argv[1])
prompt = tinker.ModelInput.from_ints(list(range(1000, 1040)))
params = tinker.SamplingParams(max_tokens=8000, stop=[])
short = tinker.SamplingParams(max_tokens=3, stop=[])
{setup}
print("waiting", flush=True)
try:
    {wait}
except KeyboardInterrupt:
    print("interrupted")
{check}
print(len(client.sample(prompt, 1, short).result(timeout=60).sequences[0].tokens))
"""
ONE = "future = client.sample(prompt, 1, params)"
MANY = "futures = [client.sample(prompt, 1, params) for _ in range(50)]"
GATHER = """async def gather():
    await asyncio.gather(*map(tinker.APIFuture.coroutine, futures))
"""
CANCEL = "assert all(future.cancel() for future in futures)"
ARE_CANCELLED = "assert all(future.cancelled() for future in futures)"
WAITS = {
    "result": (ONE, "future.result()", "assert future.cancel()"),
    "track with a bar": (MANY, "list(track(futures, disable=False))", ARE_CANCELLED),
    "track while submitting": ("", "list(track(iter(lambda: client.compute_logprobs(prompt), 0)))", ""),
    "gather": (f"{MANY}\n{GATHER}", "asyncio.run(gather())", ARE_CANCELLED),
    "the future is dropped": ("", "client.sample(prompt, 1, params).result()", ""),
    "track": (MANY, "list(track(futures))", ARE_CANCELLED),
    "wait": (MANY, "concurrent.futures.wait(futures)", CANCEL),
    "as_completed": (MANY, "list(concurrent.futures.as_completed(futures))", CANCEL),
    "asyncio.run": ("", "asyncio.run(client.sample_async(prompt, 1, params))", ""),
}


def interrupted(command: list[str], output_before: str) -> tuple[int, str, str, float]:
    """Run a command, interrupt it after it has printed a line.

    Returns its status, what it wrote, and how many seconds it took to end.
    """
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == output_before
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        try:
            output, errors = process.communicate(timeout=100)
        finally:
            process.kill()
    return process.returncode, output, errors, time.monotonic() - start


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is opened in a moment, and takes many seconds for 8,000 tokens."""
    shape = Shape(n_vocab=1100, n_embd=256, n_ff=512, n_ctx=8192)
    return write_random_model(tmp_path_factory.mktemp("models") / "small.gguf", shape=shape)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
@pytest.mark.parametrize("waits", few(4, WAITS))
def test_ctrl_c_leaves_the_client_usable(waits: str, small: Path) -> None:
    setup, wait, check = WAITS[waits]
    script = WAITING.format(setup=setup, wait=wait, check=check)
    status, output, errors, _ = interrupted([sys.executable, "-c", script, str(small)], "waiting")
    assert (status, output) == (0, "interrupted\n3\n"), errors
    assert errors == "" or waits == "track with a bar"
    assert "Traceback" not in errors


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_ends_the_command_line(small: Path) -> None:
    status, output, errors, seconds = interrupted(
        [
            sys.executable,
            "-c",
            COMMAND,
            "sample",
            "Once",
            "--max-tokens",
            "8000",
            "--n-ctx",
            "8192",
            "--model",
            str(small),
        ],
        "generating",
    )
    assert (status, output, errors) == (130, "", "interrupted\n")
    assert seconds < 20  # about 0.3


COMMAND = """
from tinker_local.cli import app
from tinker_local.sampling_client import SamplingClient

submit = SamplingClient.sample

def sample(*arguments, **named):
    print("generating", flush=True)
    return submit(*arguments, **named)

SamplingClient.sample = sample
app()
"""
