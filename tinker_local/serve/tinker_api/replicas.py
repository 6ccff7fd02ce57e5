"""Replicas: Tinker's protocol by several processes that share an address.

Any replica may get a call, but one alone has a request's future. Three rules bring the call to that one:

- A key chooses the replica, and all replicas agree on the choice. The key is made of the session that a
  header names, else of the prompt. So equal prompts meet in one prefix cache.
- A request's id has its key. Calls that concern the request are passed on by it.
- The future of a request dies with its replica. The SDK is told 410 then, and sends the request again.

A call that a dying replica has taken may get no answer at all (seen with Ray 2.60). So each is waited for a
while only; then the SDK asks again. That is safe, since a request that is there is not sampled twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tinker_local.errors import BadRequestError
from tinker_local.serve.guard import error_body
from tinker_local.serve.tinker_api.bodies import Body, read_body, text
from tinker_local.serve.tinker_api.futures import Patience
from tinker_local.serve.tinker_api.ids import key_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message

    Endpoint = Callable[[Request], Awaitable[Response]]

SESSION = "x-session-id"
"""Header whose requests go to one replica: the one with their prefix in its cache."""
_KEY = "replica_key"
_OWN_HEADERS = frozenset((b"content-length", b"x-request-id"))  # which each answer has of its own

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request that another replica passed on.

    Attributes:
        key: chooses the replica that answers.
        path: of the request.
        headers: of the request.
        body: all of it.
    """

    key: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a ``Call``."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Replicas(Protocol):
    """All replicas of an application, this one among them."""

    async def ask(self, call: Call) -> Reply:
        """Have the replica of the call's key answer it, by ``answer``.

        Raises:
            ConnectionError: that replica is gone.
        """


async def answer(app: ASGIApp, call: Call) -> Reply:
    """Answer a call that was passed on, by this replica's application."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": call.headers,
        "client": None,
        "server": None,
        "state": {_KEY: call.key},
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": call.body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    head, *parts = sent
    headers = [(name, value) for name, value in head["headers"] if name not in _OWN_HEADERS]
    return Reply(head["status"], headers, b"".join(part.get("body", b"") for part in parts))


def key_here(request: Request) -> str:
    """Return the key with which a call was passed on to this replica; "" where there is one server."""
    return str(request.scope["state"].get(_KEY, ""))


def shared(
    endpoints: Mapping[str, Endpoint], replicas: Replicas, patience: Patience
) -> dict[str, Endpoint]:
    """Return Tinker's endpoints for one of several replicas: those with futures pass calls on."""
    pass_on, at_once = partial(_passed_on, replicas), patience.replica
    when_polled = patience.poll + patience.replica
    passed = {
        "asample": pass_on(endpoints["asample"], _key_of_sample, _try_again, at_once),
        "retrieve_future": pass_on(endpoints["retrieve_future"], _key_of_request, _send_again, when_polled),
        "cancel_future": pass_on(endpoints["cancel_future"], _key_of_request, _is_cancelled, at_once),
        "retrieve_futures": _refuse_many,
    }
    return {**endpoints, **passed}


def _passed_on(
    replicas: Replicas,
    endpoint: Endpoint,
    key_of_call: Callable[[Request, Body], str],
    without_replica: Callable[[], Response],
    seconds: float,
) -> Endpoint:
    async def passed_on(request: Request) -> Response:
        if key_here(request):
            return await endpoint(request)
        key = key_of_call(request, await read_body(request))
        if not key:  # one server accepted the request, before there were replicas
            return without_replica()
        call = Call(key, request.url.path, list(request.headers.raw), await request.body())
        try:
            async with asyncio.timeout(seconds):
                reply = await replicas.ask(call)
        except TimeoutError:
            logger.warning("the replica of a request did not answer for %.0f s", seconds)
            return _try_again()
        except ConnectionError as error:
            logger.warning("the replica of a request is gone: %s", error)
            return without_replica()
        response = Response(reply.body, reply.status)
        response.raw_headers += reply.headers
        return response

    return passed_on


def _key_of_sample(request: Request, body: Body) -> str:
    session = request.headers.get(SESSION)
    said = json.dumps(body.get("prompt")) if session is None else session
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def _key_of_request(request: Request, body: Body) -> str:
    return key_of(text(body, "request_id"))


def _try_again() -> Response:
    """Answer a request that no replica is known to have accepted, or a poll that got lost."""
    return _said("the replica of this request does not answer; ask again", 503)


def _send_again() -> Response:
    """Answer a poll for a request that died with its replica."""
    return _said("the replica of this request is gone; send the request again", 410)


def _is_cancelled() -> Response:
    """Answer that a request is cancelled: it died with its replica."""
    return JSONResponse({})


async def _refuse_many(request: Request) -> Response:
    raise BadRequestError("retrieve_futures cannot ask several replicas; poll with retrieve_future")


def routes_left_out(prefix: str) -> list[BaseRoute]:
    """Return a route that refuses the protocol, for replicas that cannot pass calls on."""

    async def refuse(request: Request) -> Response:
        said = (
            f"{request.method} {request.url.path} is not served here: this is one of several replicas, "
            "which cannot ask each other on this version of Ray; update Ray, or deploy one replica"
        )
        return Response(error_body(said, 400), 400, {"x-should-retry": "false"}, "application/json")

    return [Route(f"{prefix}/{{path:path}}", refuse, methods=["GET", "POST"])]


def _said(error: str, status: int) -> Response:
    return JSONResponse({"error": error}, status)


__all__ = ["SESSION", "Call", "Replicas", "Reply", "answer", "key_here", "routes_left_out", "shared"]
