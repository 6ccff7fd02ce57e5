"""``asample`` and ``retrieve_future``: answers are those of the client in this process, errors are said."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.random_model import Shape, write_random_model
from tests.serve.caller import Caller
from tests.serve.tinker_calls import open_session, poll, retrieve, sample
from tests.serve.tiny_store import CHECKPOINT, TINY
from tinker_local import (
    ModelInput,
    RateLimitError,
    SamplingClient,
    SamplingParams,
    ServiceClient,
    TensorData,
)
from tinker_local.serve import app
from tinker_local.serve.tinker_api.protobuf import encode_response

TOKENS = [1, 2, 3, 4]
LONG: Any = {"max_tokens": 400, "stop": [], "seed": 1}


def csr() -> dict[str, Any]:
    return {
        "data": [5, 6, 7],
        "dtype": "int64",
        "shape": [3, 2],
        "sparse_crow_indices": [0, 2, 2, 3],
        "sparse_col_indices": [0, 1, 1],
    }


@pytest.mark.parametrize(
    ("sent", "given"),
    [
        ({"num_samples": 2}, {"num_samples": 2}),
        ({"prompt_logprobs": True, "prompt_logprobs_last_n": 2}, {"last_n": 2}),
        ({"topk_prompt_logprobs": 3, "topk_sample_logprobs": 2}, {"topk": 3, "topk_sample": 2}),
        ({"prompt_alt_tokens_k": 2}, {"alternatives": 2}),
        ({"target_prompt_logprobs": csr()}, {"targets": TensorData(**csr())}),
        (
            {"target_prompt_logprobs": {"data": [5, -1, 7], "dtype": "int64", "shape": [3, 1]}},
            {"targets": TensorData([5, -1, 7], "int64", [3, 1])},
        ),
    ],
)
def test_samples_are_those_of_the_client_here(
    caller: Caller, tiny_client: SamplingClient, sent: dict[str, Any], given: dict[str, Any]
) -> None:
    session = open_session(caller)
    accepted = sample(caller, session, 0, TOKENS, **sent).json()
    n = given.get("num_samples", 1)
    assert accepted["sample_sequence_ids"] == [f"{accepted['request_id']}.{i}" for i in range(n)]
    answer = retrieve(caller, accepted["request_id"])
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-protobuf")
    expected = tiny_client.sample(
        ModelInput.from_ints(TOKENS),
        n,
        SamplingParams(max_tokens=4, seed=7),
        "last_n" in given,
        given.get("topk", 0),
        given.get("topk_sample", 0),
        given.get("targets"),
        given.get("alternatives", 0),
        given.get("last_n"),
    )
    assert answer.body == encode_response(expected.result())


@pytest.mark.parametrize("stop", [[], "a", ["b", "c"], [65, 66]])
def test_stops_of_every_kind(caller: Caller, tiny_client: SamplingClient, stop: Any) -> None:
    params = {"max_tokens": 30, "seed": 3, "stop": stop}
    accepted = sample(caller, open_session(caller), 0, TOKENS, sampling_params=params).json()
    expected = tiny_client.sample(ModelInput.from_ints(TOKENS), 1, SamplingParams(**params)).result()
    assert retrieve(caller, accepted["request_id"]).body == encode_response(expected)


def test_checkpoints_and_their_bases(caller: Caller, tiny_service: ServiceClient) -> None:
    prompt, params = ModelInput.from_ints(TOKENS), SamplingParams(max_tokens=4, seed=7)
    adapted = tiny_service.create_sampling_client(CHECKPOINT).sample(prompt, 1, params).result()
    for model in ({"model_path": CHECKPOINT}, {"model_path": CHECKPOINT, "base_model": TINY}):
        accepted = sample(caller, open_session(caller, **model), 0, TOKENS).json()
        assert retrieve(caller, accepted["request_id"]).body == encode_response(adapted)


def test_a_request_that_comes_twice_is_sampled_once(caller: Caller, tiny_service: ServiceClient) -> None:
    session = open_session(caller)
    params = {"max_tokens": 4}  # without a seed
    retrieve(caller, sample(caller, session, 0, TOKENS).json()["request_id"])
    before = tiny_service.get_telemetry().counters.requests
    first = sample(caller, session, 2**62, TOKENS, sampling_params=params).json()
    again = sample(caller, session, 2**62, TOKENS, sampling_params=params).json()
    assert first == again
    answers = {retrieve(caller, first["request_id"]).body for _ in range(2)}
    assert len(answers) == 1
    assert tiny_service.get_telemetry().counters.requests == before + 1


def test_another_server_takes_the_ids_of_the_one_before(
    caller: Caller, tiny_service: ServiceClient
) -> None:
    session = open_session(caller)
    accepted = sample(caller, session, 0, TOKENS).json()
    answer = retrieve(caller, accepted["request_id"])
    with Caller(app(tiny_service)) as second:
        assert retrieve(second, accepted["request_id"]).status == 410  # the SDK sends it again
        again = sample(second, session, 1, TOKENS).json()
        assert retrieve(second, again["request_id"]).body == answer.body


def test_cancelling_frees_what_the_request_held(caller: Caller, tiny_service: ServiceClient) -> None:
    session = open_session(caller)
    retrieve(caller, sample(caller, session, 0, TOKENS).json()["request_id"])
    before = tiny_service.get_telemetry().counters
    id = sample(caller, session, 1, TOKENS, num_samples=200, sampling_params=LONG).json()["request_id"]
    waiting = caller.begin("POST", "/api/v1/retrieve_future", {"request_id": id})
    assert caller.post("/api/v1/cancel_future", {"request_id": id}).status == 200
    assert waiting.result(20).json() == {"error": "the request was cancelled", "category": "user"}
    counters = tiny_service.get_telemetry().counters
    assert (counters.cancelled, counters.failed) == (before.cancelled + 1, before.failed)
    assert counters.tokens_out == before.tokens_out


def test_the_queue_shows_while_a_model_is_loaded(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_load = threading.Event()
    open_it = ServiceClient.create_sampling_client

    def slowly(self: ServiceClient, *args: Any, **kwargs: Any) -> SamplingClient:
        may_load.wait(30)
        return open_it(self, *args, **kwargs)

    monkeypatch.setattr(ServiceClient, "create_sampling_client", slowly)
    with (
        ServiceClient(models_dir=models_dir, n_ctx=256, n_threads=1) as service,
        Caller(app(service)) as caller,
    ):
        session = open_session(caller)
        accepted = sample(caller, session, 0, TOKENS).json()
        bad = sample(caller, session, 1, [10**6]).json()
        began = time.monotonic()
        waiting = poll(caller, accepted["request_id"])
        assert time.monotonic() - began < 10  # sooner than a poll ends
        assert waiting.status == 408
        said = {"queue_state": "paused_capacity", "queue_state_reason": "loading the model"}
        assert waiting.json() == said
        may_load.set()
        assert retrieve(caller, accepted["request_id"]).status == 200
        failed = retrieve(caller, bad["request_id"])
        assert (failed.status, failed.json()["category"]) == (200, "user")
        assert "vocabulary has ids 0 to 399" in failed.json()["error"]


def test_a_model_whose_file_is_replaced_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinker_local.serve.served_models._LOOK_SECONDS", 0)
    path, answers = tmp_path / "tiny.gguf", list[bytes]()
    write_random_model(path, shape=Shape(n_layer=1), seed=1)
    with (
        ServiceClient(models_dir=tmp_path, n_ctx=256, n_threads=1) as service,
        Caller(app(service)) as caller,
    ):
        session = open_session(caller, base_model="tiny")
        for seq_id in range(4):
            accepted = sample(caller, session, seq_id, TOKENS, prompt_logprobs=True).json()
            answers.append(retrieve(caller, accepted["request_id"]).body)
            if seq_id == 1:
                write_random_model(tmp_path / "new", shape=Shape(n_layer=1), seed=2).rename(path)
    assert answers[0][:40] == answers[1][:40] != answers[2][:40] == answers[3][:40]


def test_a_model_that_cannot_be_opened_fails_its_requests(
    tiny_service: ServiceClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> SamplingClient:
        raise MemoryError("no room")

    with Caller(app(tiny_service)) as caller:
        monkeypatch.setattr(ServiceClient, "create_sampling_client", fail)
        accepted = sample(caller, open_session(caller), 0, TOKENS).json()
        failed = retrieve(caller, accepted["request_id"]).json()
        assert failed == {"error": "tinker-local failed: MemoryError: no room", "category": "server"}
        monkeypatch.undo()
        accepted = sample(caller, open_session(caller), 0, TOKENS).json()  # it is tried again
        assert retrieve(caller, accepted["request_id"]).status == 200


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [400]}]}},
            "the vocabulary has ids 0 to 399",
        ),
        ({"prompt": {"chunks": [{"type": "image", "data": ""}]}}, "an image of the prompt is wrong"),
        ({"prompt": [1, 2]}, "must be an object with a list of chunks"),
        ({"prompt": {"chunks": []}}, "prompt is empty"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"seq_id": True}, "seq_id is True"),
        ({"sampling_params": {"temperature": -1}}, "temperature is -1"),
        ({"sampling_params": {"beams": 2}}, "'beams', which is not served here"),
        ({"grammar": "x"}, "'grammar', which is not served here"),
        ({"prompt_logprobs": 1}, "prompt_logprobs is 1; it must be true or false"),
        ({"record_stability_info": True}, "record_stability_info belongs to training"),
        ({"target_prompt_logprobs": [1]}, "must be a tensor as an object"),
        ({"target_prompt_logprobs": {"data": [1], "dtype": "int8"}}, "holds int64 or float32"),
        ({"target_prompt_logprobs": {"data": [1, 2], "dtype": "int64", "shape": [9, 9]}}, "reshape"),
    ],
)
def test_bad_requests_are_told_at_once(caller: Caller, fields: dict[str, Any], said: str) -> None:
    session = open_session(caller)
    retrieve(caller, sample(caller, session, 0, TOKENS).json()["request_id"])
    answer = sample(caller, session, 1, TOKENS, **fields)
    assert answer.status == 400
    assert said in answer.json()["error"]["message"]


def test_a_full_queue_is_429(
    caller: Caller, tiny_client: SamplingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(caller)
    retrieve(caller, sample(caller, session, 0, TOKENS).json()["request_id"])

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RateLimitError("full")

    monkeypatch.setattr(SamplingClient, "sample", refuse)
    answer = sample(caller, session, 1, TOKENS)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    monkeypatch.undo()
    assert sample(caller, session, 1, TOKENS).status == 200


@pytest.mark.parametrize("id", ["", "x", "WzFd", "é", "WyJzIiwwLG51bGwsbnVsbF0", "W" * 5000])
def test_ids_of_others_are_not_found(caller: Caller, id: str) -> None:
    assert sample(caller, id, 0, TOKENS).status == 404
    assert retrieve(caller, f"{id}.0").status == 404
    assert retrieve(caller, id).status == 404
