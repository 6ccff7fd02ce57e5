"""Requests broken at random: each gets an answer that is no fault of ours, and the server goes on."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.long import as_long
from tests.serve.caller import Caller
from tests.serve.tinker_calls import open_session, retrieve, sample_body
from tests.serve.tiny_store import CHECKPOINT, TINY
from tinker_local import ServiceClient
from tinker_local.serve import app

ODD: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, "", "x", "é\ud800", "\0", "7",
    "x" * 5000, [], {}, [[]], [None], [1, "a"], {"type": "x"}, {"chunks": [{}]}, TINY, CHECKPOINT,
]  # fmt: skip


def seeds(session: str) -> list[tuple[str, Any]]:
    """Return sound requests: paths and bodies."""
    chat = {
        "model": TINY,
        "messages": [{"role": "user", "content": "ab"}],
        "max_tokens": 2,
        "logprobs": True,
    }
    targets = {"data": [5, -1, 7], "dtype": "int64", "shape": [3, 1]}
    completion = {
        "model": TINY,
        "prompt": "ab",
        "max_tokens": 2,
        "echo": True,
        "logprobs": 2,
        "stop": ["x"],
    }
    target = {"type": "sampling_session", "sampling_session_id": session, "cloned_sampler_id": 0}
    return [
        ("/api/v1/asample", sample_body(session, 0, [1, 2, 3, 4], target_prompt_logprobs=targets)),
        ("/api/v1/asample", sample_body(session, 1, [1, 2, 3, 4], prompt_logprobs=True)),
        ("/api/v1/retrieve_future", {"request_id": f"{session}.0", "allow_metadata_only": True}),
        ("/api/v1/retrieve_futures", {"target": target, "prev_cursor": 0, "timeout": 0}),
        ("/api/v1/cancel_future", {"request_id": f"{session}.1"}),
        ("/api/v1/create_session", {"tags": ["a"], "user_metadata": {"b": "c"}, "sdk_version": "0.38.0"}),
        (
            "/api/v1/create_sampling_session",
            {"session_id": "s", "sampling_session_seq_id": 1, "base_model": TINY, "model_path": CHECKPOINT},
        ),
        ("/api/v1/join_sampling_session", {"sampling_session_id": session}),
        ("/api/v1/telemetry", {"events": [{"event": "SESSION_START", "n": 1}], "platform": "x"}),
        ("/api/v1/weights_info", {"tinker_path": CHECKPOINT}),
        ("/v1/completions", completion),
        (
            "/v1/completions",
            {"model": TINY, "prompt": [[1, 2], [3]], "max_tokens": 1, "n": 2, "best_of": 2},
        ),
        ("/v1/chat/completions", chat | {"top_logprobs": 2, "temperature": 0.5, "seed": 1}),
        ("/tokenize", {"model": TINY, "prompt": "ab", "add_special_tokens": False}),
        ("/detokenize", {"model": TINY, "tokens": [1, 2]}),
    ]


def mutated(body: Any, rng: random.Random) -> Any:
    """Return a body with one value replaced, removed or added somewhere."""
    if isinstance(body, dict) and body and rng.random() < 0.9:
        name = rng.choice(list(body))
        changed = dict(body)
        match rng.randrange(6):
            case 0:
                del changed[name]
            case 1:
                changed[rng.choice(["x", "stream", "n", "", "type"])] = rng.choice(ODD)
            case _:
                changed[name] = mutated(body[name], rng)
        return changed
    if isinstance(body, list) and body and rng.random() < 0.7:
        place = rng.randrange(len(body))
        return [*body[:place], mutated(body[place], rng), *body[place + 1 :]]
    return rng.choice(ODD)


def raw(body: Any, rng: random.Random) -> bytes:
    """Return a body's bytes, now and then broken as well."""
    text = bytearray(json.dumps(body).encode())
    if rng.random() < 0.15:
        text[rng.randrange(len(text))] = rng.randrange(256)
    if rng.random() < 0.05:
        del text[rng.randrange(len(text)) :]
    return bytes(text)


@pytest.mark.parametrize(("count", "seed"), [(80, 1), as_long((1000, 2))])
def test_broken_requests(tiny_service: ServiceClient, count: int, seed: int) -> None:
    rng = random.Random(seed)
    statuses = set[int]()
    with Caller(app(tiny_service)) as caller:
        session = open_session(caller)
        sound = sample_body(session, 10**9, [1, 2, 3])
        before = retrieve(caller, caller.post("/api/v1/asample", sound).json()["request_id"]).body
        for _ in range(count):
            path, body = rng.choice(seeds(session))
            for _ in range(rng.choice([1, 1, 2, 4])):
                body = mutated(body, rng)
            text = raw(body, rng)
            answer = caller.post(path, text)
            assert answer.status < 500, (path, text, answer)
            assert b"tinker-local failed" not in answer.body, (path, text, answer)
            if path == "/api/v1/asample" and answer.status == 200:
                caller.post("/api/v1/cancel_future", {"request_id": answer.json()["request_id"]})
            statuses.add(answer.status)
        assert {200, 400, 404} <= statuses
        again = sample_body(session, 2 * 10**9, [1, 2, 3])
        assert retrieve(caller, caller.post("/api/v1/asample", again).json()["request_id"]).body == before
