"""Tinker's protocol by two replicas: a call reaches the one with its future, or the SDK sends it again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.serve.caller import Answer, Caller
from tests.serve.tinker_calls import open_session, retrieve, sample, sample_body
from tests.serve.tiny_store import TINY
from tinker_local import ServiceClient
from tinker_local.serve import app
from tinker_local.serve.tinker_api.futures import Patience
from tinker_local.serve.tinker_api.replicas import Call, Reply, answer

PROMPTS = [[1 + i, 2, 3] for i in range(8)]


class Pair:
    """Two replicas in this process; the key's parity chooses one."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.gone: set[int] = set()
        self.silent: set[int] = set()
        self.asked: list[tuple[int, str]] = []

    async def ask(self, call: Call) -> Reply:
        number = int(call.key, 16) % 2
        if number in self.gone:
            raise ConnectionError("killed")
        if number in self.silent:
            await asyncio.sleep(60)
        self.asked.append((number, call.path.rpartition("/")[2]))
        return await answer(self.callers[number].app, call)

    def owner(self, accepted: Answer) -> int:
        """Return which replica has a request; the id says it."""
        return int(accepted.json()["request_id"].split(".")[1], 16) % 2


@pytest.fixture
def pair(tiny_service: ServiceClient) -> Iterator[Pair]:
    with pair_of(tiny_service) as pair:
        yield pair


@contextmanager
def pair_of(tiny_service: ServiceClient) -> Iterator[Pair]:
    pair = Pair()
    # One event loop for both, as a call that is passed on runs on that of its replica.
    with Caller(app(tiny_service, replicas=pair)) as first:
        second = Caller(app(tiny_service, replicas=pair))
        second.run = first.run  # type: ignore[method-assign]
        lifespan = second._app_lifespan()
        first.run(lifespan.__aenter__()).result(60)
        pair.callers = [first, second]
        yield pair
        first.run(lifespan.__aexit__(None, None, None)).result(60)


def test_answers_come_from_the_replica_that_has_the_future(pair: Pair, caller: Caller) -> None:
    first, second = pair.callers
    session = open_session(first)
    accepted = [sample(first, session, i, tokens) for i, tokens in enumerate(PROMPTS)]
    owners = [pair.owner(each) for each in accepted]
    assert set(owners) == {0, 1}
    again = [sample(second, session, i, tokens) for i, tokens in enumerate(PROMPTS)]
    assert [each.json() for each in again] == [each.json() for each in accepted], "sampled once"
    assert [number for number, _ in pair.asked] == owners * 2
    alone = open_session(caller)
    for i, each in enumerate(accepted):
        found = retrieve(second if i % 2 else first, each.json()["request_id"])
        ours = retrieve(caller, sample(caller, alone, i, PROMPTS[i]).json()["request_id"])
        assert (found.status, found.body) == (200, ours.body)
        assert found.headers["content-type"] == ours.headers["content-type"]
        assert list(found.headers).count("x-request-id") == 1


def test_equal_prompts_and_sessions_meet(pair: Pair) -> None:
    first, second = pair.callers
    session = open_session(first)
    same = [sample(caller, session, i, [5, 6, 7]) for i, caller in enumerate((first, second))]
    assert pair.owner(same[0]) == pair.owner(same[1])
    headers = {"x-session-id": "a7"}
    named = [
        first.post("/api/v1/asample", sample_body(session, 10 + i, tokens), **headers)
        for i, tokens in enumerate(PROMPTS)
    ]
    assert len({pair.owner(each) for each in named}) == 1


@pytest.mark.parametrize(
    ("state", "polled", "asked", "cancelled"), [("gone", 410, 503, 200), ("silent", 503, 503, 503)]
)
def test_a_replica_that_dies(
    monkeypatch: pytest.MonkeyPatch,
    tiny_service: ServiceClient,
    state: str,
    polled: int,
    asked: int,
    cancelled: int,
) -> None:
    """Accepted requests are sent again (410), others asked again (503); nothing is left to cancel.

    Where the replica dies without a word, every call ends, and the SDK asks again.
    """
    quick = Patience(poll=0.1, replica=0.1)
    monkeypatch.setattr("tinker_local.serve.tinker_api.Patience", lambda: quick)
    with pair_of(tiny_service) as pair:
        first, _ = pair.callers
        session = open_session(first)
        accepted = [sample(first, session, i, tokens) for i, tokens in enumerate(PROMPTS)]
        setattr(pair, state, {1})
        for i, each in enumerate(accepted):
            is_dead, request = pair.owner(each) == 1, {"request_id": each.json()["request_id"]}
            assert retrieve(first, request["request_id"]).status == (polled if is_dead else 200)
            assert sample(first, session, i, PROMPTS[i]).status == (asked if is_dead else 200)
            answer = first.post("/api/v1/cancel_future", request)
            assert answer.status == (cancelled if is_dead else 200)


def test_ids_of_others(pair: Pair, caller: Caller) -> None:
    """An id from before there were replicas is sent again, as one of replicas is by a single server."""
    first, _ = pair.callers
    alone = sample(caller, open_session(caller), 0, [1]).json()["request_id"]
    assert retrieve(first, alone).status == 410
    shared = sample(first, open_session(first), 0, [1]).json()["request_id"]
    assert retrieve(caller, shared).status == 410
    session = shared.partition(".")[0]
    for key in ("\ud800", "x" * 16, "0" * 33, "a.b"):
        assert retrieve(first, f"{session}.{key}.0").status == 404


def test_calls_for_all_requests_are_refused(pair: Pair) -> None:
    first, _ = pair.callers
    target = {"sampling_session_id": open_session(first), "cloned_sampler_id": 0}
    refused = first.post("/api/v1/retrieve_futures", {"target": target, "prev_cursor": 0})
    assert refused.status == 400
    assert "several replicas" in refused.json()["error"]["message"]


def test_replicas_that_cannot_ask_each_other_refuse_the_protocol(tiny_service: ServiceClient) -> None:
    with Caller(app(tiny_service, stateless=True)) as caller:
        refused = caller.post("/api/v1/create_session", {})
        assert refused.status == 400
        assert "update Ray, or deploy one replica" in refused.json()["error"]["message"]
        assert refused.headers["x-should-retry"] == "false"
        assert caller.get("/api/v1/healthz").status == 200
        assert caller.post("/v1/completions", {"model": TINY, "prompt": [1], "max_tokens": 1}).status == 200
