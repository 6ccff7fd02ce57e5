"""Clients in other processes: spawned and forked, pickled and by a handle."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.random_model import write_random_model
from tinker_local import (
    BadRequestError,
    ModelInput,
    NotFoundError,
    RequestFailedError,
    RetryConfig,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)

PROMPTS = [list(range(first, first + 30)) for first in range(8)]
PARAMS = SamplingParams(max_tokens=6, seed=3, stop=[])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> SamplingClient:
    path = write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf")
    service = ServiceClient(n_ctx=256, batch_invariant=True, n_threads=1)
    return service.create_sampling_client(base_model=str(path))


def work(client: SamplingClient, tokens: list[int]) -> tuple[int, list[int], list[float] | None, str]:
    (sequence,) = client.sample(ModelInput.from_ints(tokens), 1, PARAMS).result(100).sequences
    return os.getpid(), sequence.tokens, sequence.logprobs, sequence.sequence_id


def work_by_handle(handle: str, tokens: list[int]) -> tuple[int, list[int], list[float] | None, str]:
    return work(SamplingClient.from_sampler_handle(handle, api_key="unused"), tokens)


def test_a_pool_of_spawned_processes(client: SamplingClient) -> None:
    """One pickled client, and its handle: the bits of this process in each of them."""
    expected = [work(client, tokens) for tokens in PROMPTS]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        pickled = [pool.submit(work, client, tokens) for tokens in PROMPTS]
        handled = [pool.submit(work_by_handle, client.get_sampler_handle(), tokens) for tokens in PROMPTS]
        found = [future.result(150) for future in (*pickled, *handled)]
    for index, (_, tokens, logprobs, _) in enumerate(found):
        assert (tokens, logprobs) == expected[index % len(PROMPTS)][1:3]
    assert os.getpid() not in {pid for pid, *_ in found}
    assert len({name for *_, name in (*expected, *found)}) == 3 * len(PROMPTS), "names of sequences"


def _in_a_fork(client: SamplingClient, state: bytes, connection: object) -> None:
    import pickle

    try:
        client.sample(ModelInput.from_ints(PROMPTS[0]), 1, PARAMS)
        said = "nothing"
    except RequestFailedError as error:
        said = str(error)
    fresh = [pickle.loads(state), SamplingClient.from_sampler_handle(client.get_sampler_handle())]
    assert fresh[0]._engine is fresh[1]._engine
    connection.send((said, [work(one, tokens)[1:3] for one in fresh for tokens in PROMPTS]))  # type: ignore[attr-defined]
    os._exit(0)  # as a worker ends that was forked


@pytest.mark.skipif(sys.platform != "linux", reason="forking is safe on Linux only")
def test_a_forked_process(client: SamplingClient) -> None:
    """The parent's engine says that it lives elsewhere; an unpickled client opens the files again."""
    import pickle

    again = pickle.loads(pickle.dumps(client))  # its engine must not be taken for the child's
    expected = [work(again, tokens)[1:3] for tokens in PROMPTS]
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_in_a_fork, args=(client, pickle.dumps(client), there))
    child.start()
    assert here.poll(100), "the forked process gave no answer"
    said, found = here.recv()
    child.join(20)
    assert "forked" in said
    assert found == [*expected, *expected]


def test_what_a_copy_keeps(client: SamplingClient, tmp_path: Path) -> None:
    import pickle

    config = RetryConfig(max_connections=3)
    path = str(client.weights.path)
    service = ServiceClient(n_ctx=256, n_threads=1)
    original = service.create_sampling_client(base_model=path, retry_config=config)
    copy = pickle.loads(pickle.dumps(original))
    assert (copy.get_base_model(), copy._retry_config) == (path, config)
    assert copy.get_telemetry().counters.requests == 0
    by_handle = SamplingClient.from_sampler_handle(original.get_sampler_handle())
    assert by_handle.get_base_model() == path
    assert by_handle.options == original.options


def test_a_handle_is_plain_json_and_runs_nothing(client: SamplingClient) -> None:
    state = json.loads(base64.urlsafe_b64decode(client.get_sampler_handle()))
    assert state["weights"]["path"] == str(client.weights.path)
    state["weights"]["path"] = "/nowhere.gguf"
    gone = base64.urlsafe_b64encode(json.dumps(state).encode()).decode()
    with pytest.raises(NotFoundError, match=r"/nowhere\.gguf"):
        SamplingClient.from_sampler_handle(gone)
    for wrong in ("", "no handle", base64.urlsafe_b64encode(b"{}").decode(), gone[:-8]):
        with pytest.raises(BadRequestError, match="get_sampler_handle"):
            SamplingClient.from_sampler_handle(wrong)
