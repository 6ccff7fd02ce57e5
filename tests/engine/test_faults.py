"""What goes wrong inside, provoked: it hurts the request it belongs to, and nobody else."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.random_model import Architecture, write_random_model
from tinker_local import (
    APIFuture,
    InternalServerError,
    ModelInput,
    QueueState,
    RequestFailedError,
    SampleResponse,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)
from tinker_local.engine.loop import Loop
from tinker_local.engine.request import Request
from tinker_local.engine.runner import Readout
from tinker_local.engine.sequence import ActiveRequest, Prompt
from tinker_local.llama.context import DecodeError

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = [ModelInput.from_ints([40 + i] * 30) for i in range(5)]
PARAMS = SamplingParams(max_tokens=40, temperature=0, stop=[])
SHORT = SamplingParams(max_tokens=3, temperature=0, stop=[])
MODES: dict[str, dict[str, Any]] = {
    "usual": {"kv_type": "f32", "flash_attn": False},
    "batch_invariant": {"batch_invariant": True},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(params=MODES)
def client(tiny: Path, request: pytest.FixtureRequest) -> Iterator[SamplingClient]:
    with open_service(**MODES[request.param]) as service:
        yield service.create_sampling_client(base_model=str(tiny))


def open_service(**options: Any) -> ServiceClient:
    return ServiceClient(n_ctx=512, n_threads=1, **options)


def loop_of(client: SamplingClient) -> Loop:
    return client._engine._loop


def readout_of(client: SamplingClient) -> Readout:
    readout: Readout = loop_of(client)._runner._readout  # type: ignore[attr-defined]
    return readout


def tokens(future: APIFuture[SampleResponse]) -> list[int]:
    return future.result(60).sequences[0].tokens


class Together:
    """Five requests in the same steps, of which the second is the victim."""

    def __init__(self, client: SamplingClient) -> None:
        self.client = client
        self.expected = [tokens(client.sample(prompt, 1, PARAMS)) for prompt in PROMPTS]
        self.victim: APIFuture[SampleResponse] | None = None
        self.n_faults = 0

    def is_victim(self, active: ActiveRequest) -> bool:
        return active.request.future is self.victim

    def run(self) -> list[APIFuture[SampleResponse]]:
        scheduler = loop_of(self.client)._scheduler
        schedule = scheduler.schedule
        scheduler.schedule = lambda: (time.sleep(0.002), schedule())[1]  # type: ignore[method-assign]
        futures = []
        for number, prompt in enumerate(PROMPTS):
            futures.append(self.client.sample(prompt, 1, PARAMS))
            if number == 1:
                self.victim = futures[-1]
        return futures

    def check(self, futures: list[APIFuture[SampleResponse]], said: str) -> None:
        assert self.victim is not None
        with pytest.raises(InternalServerError, match=said):
            self.victim.result(60)
        for future, expected in zip(futures, self.expected, strict=True):
            if future is not self.victim:
                assert tokens(future) == expected
        assert self.n_faults
        self.victim = None
        assert tokens(self.client.sample(PROMPTS[1], 1, PARAMS)) == self.expected[1]


def test_logits_that_are_nan_hurt_one_request(
    client: SamplingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, readout = Together(client), readout_of(client)
    draws = readout._draws

    def poisoned(samples: list[Any], rows: list[int], logits: Any) -> Any:
        logits = logits.copy()
        for sample, row in zip(samples, rows, strict=True):
            if case.is_victim(sample.owner) and len(sample.drawn) > 10:
                logits[row] = np.nan
                case.n_faults += 1
        return draws(samples, rows, logits)

    monkeypatch.setattr(readout, "_draws", poisoned)
    case.check(case.run(), "NaN")


def test_scores_that_are_nan_hurt_one_request(
    client: SamplingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [client.compute_logprobs(prompt).result(60) for prompt in PROMPTS[2:]]
    readout = readout_of(client)
    score = readout._score

    def poisoned(prompt: Prompt, first: int, logits: Any) -> None:
        bad = np.full_like(logits, np.nan) if prompt.tokens[0] == 41 else logits
        score(prompt, first, bad)

    with monkeypatch.context() as patch:
        patch.setattr(readout, "_score", poisoned)
        futures = [client.compute_logprobs(prompt) for prompt in PROMPTS[1:]]
        with pytest.raises(InternalServerError, match="NaN"):
            futures[0].result(60)
        found = [future.result(60) for future in futures[1:]]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.array(one[1:]), np.array(other[1:]), atol=1e-4)
    assert client.compute_logprobs(PROMPTS[1]).result(60)


def test_a_decode_that_fails_hurts_the_request_it_fails_for(
    client: SamplingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, loop = Together(client), loop_of(client)
    context = loop._context
    assert context is not None
    decode = context.decode

    def failing(n_tokens: int) -> None:
        ids = {s.id for p in loop._scheduler._active if case.is_victim(p) for s in p.samples}
        if ids & set(context.batch.sequences[:n_tokens].tolist()):
            case.n_faults += 1
            raise DecodeError(-3)
        decode(n_tokens)

    monkeypatch.setattr(context, "decode", failing)
    case.check(case.run(), "-3")


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_a_decode_that_fails_once(
    architecture: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens are computed again; where states cannot step back, the requests of that step end."""
    client = open_service().create_sampling_client(
        base_model=str(write_random_model(tmp_path / "x.gguf", architecture))
    )
    case = Together(client)
    context = loop_of(client)._context
    assert context is not None
    decode = context.decode

    def fail_once(n_tokens: int) -> None:
        case.n_faults += 1
        if case.n_faults == 20:
            raise DecodeError(-2)
        decode(n_tokens)

    monkeypatch.setattr(context, "decode", fail_once)
    futures = case.run()
    if architecture == "llama":
        assert [tokens(future) for future in futures] == case.expected
    else:
        assert any(isinstance(future.exception(60), InternalServerError) for future in futures)
        assert [tokens(client.sample(prompt, 1, PARAMS)) for prompt in PROMPTS] == case.expected


@pytest.mark.parametrize("where", ["_runner.run", "_scheduler.schedule", "_scheduler.advance", "_receive"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("provoked")])
def test_an_error_in_the_loop_ends_requests_and_not_the_loop(
    client: SamplingClient, where: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokens(client.sample(PROMPTS[0], 1, PARAMS))
    owner: Any = loop_of(client)
    *path, name = where.split(".")
    for attribute in path:
        owner = getattr(owner, attribute)
    method, calls = getattr(owner, name), []

    def fail_once(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            raise error
        return method(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail_once)
        futures = [client.sample(prompt, 2, PARAMS) for prompt in PROMPTS]
        failures = [future.exception(60) for future in futures]
    failed = [failure for failure in failures if failure is not None]
    assert failed
    for failure in failed:
        assert isinstance(failure, InternalServerError)
        assert "out of memory" in str(failure) or "provoked" in str(failure)
    assert tokens(client.sample(PROMPTS[0], 1, PARAMS)) == expected


@pytest.mark.parametrize("error", [MemoryError(), InternalServerError("no room")])
def test_a_context_that_cannot_be_made_again(
    client: SamplingClient, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokens(client.sample(PROMPTS[0], 1, SHORT))
    loop = loop_of(client)
    loop.ask_to_release()
    for _ in range(1000):
        if loop._context is None:
            break
        time.sleep(0.005)

    def fail() -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_make_context", fail)
        with pytest.raises(InternalServerError, match=r"memory|no room"):
            client.sample(PROMPTS[0], 1, SHORT).result(60)
    assert tokens(client.sample(PROMPTS[0], 1, SHORT)) == expected


LITTLE_MEMORY = """
import resource, sys
import tinker_local as tinker
def sample(n_ctx):
    service = tinker.ServiceClient(n_ctx=n_ctx, n_threads=1, kv_type="f32")
    client = service.create_sampling_client(base_model=sys.argv[1])
    prompt = tinker.ModelInput.from_ints([1] * 9)
    return client, client.sample(prompt, 1, tinker.SamplingParams(max_tokens=3)).result(60)
kept, _ = sample(512)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 600_000_000,) * 2)
try:
    sample(1_000_000)
    print("made")
except tinker.InternalServerError as error:
    print("refused:", error)
prompt = tinker.ModelInput.from_ints([1] * 9)
kept.sample(prompt, 1, tinker.SamplingParams(max_tokens=3)).result(60)
sample(1024)
print("went on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_context_that_the_system_has_no_memory_for(tmp_path: Path) -> None:
    from tests.random_model import Shape

    path = write_random_model(tmp_path / "x.gguf", shape=Shape(n_ctx=2_000_000))
    command = [sys.executable, "-c", LITTLE_MEMORY, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    refused, went_on = done.stdout.splitlines()
    assert refused.startswith("refused: llama.cpp cannot make a context of n_ctx=1000000")
    assert went_on == "went on"


class Rude(SamplingClient):
    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        raise RuntimeError("in a user's observer")


def test_errors_in_callbacks(client: SamplingClient) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("in a user's callback")

    def leave(_: Any) -> None:
        raise SystemExit(3)

    expected = tokens(client.sample(PROMPTS[0], 1, PARAMS))
    rude = Rude(client._engine, client.options, client.weights)
    speaking = rude.sample(PROMPTS[1], 1, PARAMS, on_token=fail)
    futures = [rude.sample(PROMPTS[0], 4, PARAMS) for _ in range(12)]  # more than there is room for
    for future in futures:
        future.add_done_callback(fail)
        future.add_done_callback(leave)
    with pytest.raises(InternalServerError, match="in a user's callback"):
        speaking.result(60)
    for future in futures:
        assert future.result(60).sequences[3].tokens == expected


def test_a_request_that_comes_when_the_loop_has_ended(client: SamplingClient) -> None:
    loop = loop_of(client)
    loop.closing = True
    loop.wake()
    assert loop.ended.wait(60)
    future: APIFuture[object] = APIFuture()
    loop.submit(Request(np.ones(1, np.int32), future, lambda outcome: outcome), None)
    with pytest.raises(RequestFailedError, match="closed"):
        future.result(5)
    client._engine.close()
