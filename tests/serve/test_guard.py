"""Who may ask, and how much."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve.caller import Caller
from tests.serve.tinker_calls import open_session, sample
from tinker_local import ServiceClient
from tinker_local.serve import Access, Limits, app

KEY = "tml-secret"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"])
def test_names_of_this_machine(caller: Caller, host: str) -> None:
    assert caller.get("/metrics", host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "", "localhost.", "::1:x"])
def test_other_names_are_refused(caller: Caller, host: str) -> None:
    answer = caller.get("/metrics", host=host)
    assert answer.status == 403
    assert "the Host header" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:3000"},  # another page of this machine
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
    ],
)
def test_pages_elsewhere_are_refused(caller: Caller, headers: dict[str, str]) -> None:
    answer = caller.post("/api/v1/create_session", {}, **headers)
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers


def test_a_page_of_this_server_may_ask(caller: Caller) -> None:
    assert caller.post("/api/v1/create_session", {}, origin=f"http://{caller.host}").status == 200


def test_a_page_that_was_allowed_may_ask(tiny_service: ServiceClient) -> None:
    page = "https://page.example"
    with Caller(app(tiny_service, access=Access(KEY, origins=frozenset([page])))) as caller:
        asked = {"origin": page, "access_control_request_method": "POST"}
        before = caller.begin("OPTIONS", "/api/v1/create_session", **asked).result(10)
        assert (before.status, before.headers["access-control-allow-origin"]) == (204, page)
        assert "x-api-key" in before.headers["access-control-allow-headers"]
        answer = caller.post("/api/v1/create_session", {}, origin=page, x_api_key=KEY)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, page)
        asked["origin"] = "https://evil.example"
        assert caller.begin("OPTIONS", "/api/v1/create_session", **asked).result(10).status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x_api_key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer  {KEY}"}, 200),
        ({}, 401),
        ({"x_api_key": KEY[:-1]}, 401),
        ({"x_api_key": ""}, 401),
        ({"authorization": KEY}, 401),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": "Bearer é"}, 401),
    ],
)
def test_the_key(tiny_service: ServiceClient, headers: Any, status: int) -> None:
    with Caller(app(tiny_service, access=Access(KEY)), host="any.example") as caller:
        assert caller.get("/metrics", **headers).status == status
        assert caller.get("/api/v1/healthz").json() == {"status": "ok"}
        assert caller.get("/healthz/../metrics").status == 401


def test_a_large_body_is_refused(tiny_service: ServiceClient) -> None:
    with Caller(app(tiny_service, limits=Limits(body_bytes=100))) as caller:
        assert caller.post("/api/v1/create_session", b'{"a": 1}').status == 200
        assert caller.post("/api/v1/create_session", bytes(101)).status == 400  # found as it comes
        said = caller.post("/api/v1/create_session", b"{}", content_length="101")
        assert said.status == 413


def test_too_many_requests_at_a_time_are_429(tiny_service: ServiceClient) -> None:
    with Caller(app(tiny_service, limits=Limits(requests=0))) as caller:
        answer = caller.get("/metrics")
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")


def test_faults_of_ours_are_no_500_for_the_sdk(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinker_local.serve.tinker_api.sessions.JSONResponse", lambda said: 1 / 0)
    answer = caller.post("/api/v1/create_session", {})
    assert answer.status == 400
    assert "tinker-local failed: ZeroDivisionError" in answer.json()["error"]["message"]
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]


def test_the_log_has_no_prompts(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "tinker_local.serve"):
        answer = caller.post("/api/v1/create_session", {"user_metadata": {"a": "secret words"}})
        caller.get("/no/such/secret")
    assert f"{answer.headers['x-request-id']} POST /api/v1/create_session 200" in caplog.text
    assert "secret" not in caplog.text


def test_prompts_are_in_the_log_if_asked(
    tiny_service: ServiceClient, caplog: pytest.LogCaptureFixture
) -> None:
    for wanted in (False, True):
        with (
            Caller(app(tiny_service, logs_prompts=wanted)) as caller,
            caplog.at_level("INFO", "tinker_local.serve"),
        ):
            session = open_session(caller)
            answer = sample(caller, session, 0, [301, 302])
        said = f"{answer.headers['x-request-id']} prompt [301, 302]"
        assert (said in caplog.text) == wanted
