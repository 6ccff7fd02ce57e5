"""Guard: who may ask, and how much: Host and Origin, the API key, limits on bodies and on requests.

A server on this machine is in reach of every page that the machine's browser shows. Two checks keep pages
out (https://en.wikipedia.org/wiki/DNS_rebinding). The Host header must be a name of this machine. A request
that says its Origin must come from a page of this server, or from one that was allowed.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinker_local.errors import BadRequestError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tinker_local.serve.metrics import Metrics

LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
OPEN_PATHS = ("/healthz", "/api/v1/healthz", "/", "/page/")
"""What is answered without a key."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client can cost the others.

    Attributes:
        body_bytes: most bytes of a request's body.
        requests: most HTTP requests at a time; further ones are answered 429.
        body_seconds: within which a body must have come.
        send_seconds: for which a client may read nothing of its answer.
    """

    body_bytes: int = 64 * 2**20
    requests: int = 8192
    body_seconds: float = 60.0
    send_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask.

    Attributes:
        api_key: what clients must send as ``X-API-Key`` or ``Authorization: Bearer``; None for no key.
        hosts: names in Host that are this server's, without ports. With a key any name is.
        origins: pages elsewhere that may ask (``https://example.org``); they get CORS headers.
        open_paths: what needs no key. Those that end in "/" stand for all below, "/" itself for one page.
    """

    api_key: str | None = None
    hosts: frozenset[str] = LOOPBACK
    origins: frozenset[str] = frozenset()
    open_paths: tuple[str, ...] = OPEN_PATHS
    _key: bytes | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_key", None if self.api_key is None else self.api_key.encode())

    def is_open(self, path: str) -> bool:
        """Whether a path needs no key."""
        return any(
            path == known or (known != "/" and known.endswith("/") and path.startswith(known))
            for known in self.open_paths
        )

    def is_known_host(self, host: str) -> bool:
        """Whether a Host header names this server."""
        return self._key is not None or _without_port(host) in self.hosts

    def is_known_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this origin may ask: one of this server, or one that was allowed."""
        return origin in self.origins or origin.partition("://")[2].casefold() == host.casefold()

    def is_key(self, headers: dict[bytes, bytes]) -> bool:
        """Whether the headers have the key; takes as long for any wrong one."""
        if self._key is None:
            return True
        kind, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = (headers.get(b"x-api-key", b""), bearer.strip() if kind.lower() == b"bearer" else b"")
        return sum(hmac.compare_digest(key, self._key) for key in given) > 0


class Guard:
    """ASGI middleware around everything.

    Args:
        app: what is guarded.
        access: who may ask.
        limits: how much.
        metrics: counts the answers.
    """

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, metrics: Metrics) -> None:
        self._app, self._access, self._limits, self._metrics = app, access, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the application answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._access, self._limits)
        with self._metrics.request() as n_running:
            refusal = exchange.refusal() or (_busy() if n_running > self._limits.requests else None)
            try:
                await exchange.run(
                    exchange.refuse(*refusal)
                    if refusal
                    else self._app(scope, exchange.receive, exchange.send)
                )
            except _TooSlow as error:
                logger.info("%s %r: %s", exchange.request_id, scope["path"], error)
            except Exception as error:
                logger.exception("%s %r failed", exchange.request_id, scope["path"])
                await exchange.fail(error)
            finally:
                exchange.log(self._metrics)


class _Exchange:
    """One request and its answer, within the limits."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, access: Access, limits: Limits) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._access, self._limits = access, limits
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._n_body, self._status, self._began = 0, 0, time.monotonic()
        self._deadline = self._began + limits.body_seconds
        self._is_body_here = False
        self._loop = asyncio.get_running_loop()
        self._sending_since: float | None = None
        self.request_id = secrets.token_hex(6)
        scope.setdefault("state", {})["request_id"] = self.request_id

    def refusal(self) -> tuple[int, str] | None:
        """Return the status and the reason of a refusal, None for a request to answer."""
        host, origin = self._text(b"host"), self._text(b"origin")
        if not self._access.is_known_host(host):
            return 403, (
                f"the Host header is {host[:100]!r}, no name of this server; allow it with --allow-host, "
                "or set a key with --api-key"
            )
        if origin and not self._access.is_known_origin(origin, host):
            return 403, f"the page {origin[:100]!r} may not ask; allow it with --allow-origin"
        if not origin and self._text(b"sec-fetch-site") == "cross-site" and self._scope["method"] != "GET":
            return 403, "a page elsewhere may not ask; allow it with --allow-origin"
        if self._is_preflight():
            return 204, ""
        if not self._access.is_open(self._scope["path"]) and not self._access.is_key(self._headers):
            return 401, "the key is missing or wrong; send the server's as X-API-Key or as a Bearer token"
        length = self._text(b"content-length")
        if length.isdecimal() and int(length[:20]) > self._limits.body_bytes:
            return 413, _too_large(self._limits.body_bytes)
        return None

    async def run(self, answering: Awaitable[None]) -> None:
        """Await the answer's end, unless the client stops to read.

        Raises:
            _TooSlow: it does.
        """
        # One timer for the whole answer: a limit around each write would cost as much as the write.
        try:
            async with asyncio.timeout(None) as self._reading:
                self._look()
                await answering
        except TimeoutError:
            if not self._reading.expired():
                raise
            raise _TooSlow("the client reads too slowly") from None
        finally:
            self._next_look.cancel()

    def _look(self) -> None:
        """End the answer if a write has taken too long; else look again when it may have."""
        now = self._loop.time()
        end = (self._sending_since or now) + self._limits.send_seconds
        if end <= now:
            self._reading.reschedule(now)
        else:
            self._next_look = self._loop.call_at(end, self._look)

    async def refuse(self, status: int, reason: str) -> None:
        """Answer without the application."""
        body = error_body(reason, status) if reason else b""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if status == 429:
            headers.append((b"retry-after", b"1"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def fail(self, error: Exception) -> None:
        """Answer a fault of ours. Tinker's SDK asks again for minutes after a 500, so it gets a 400."""
        said = f"tinker-local failed: {type(error).__name__}; its log has more under {self.request_id}"
        if not self._status:
            await self.refuse(400 if self._scope["path"].startswith("/api/v1/") else 500, said)

    async def receive(self) -> Message:
        """Pass a message on, if the body is neither too large nor too slow."""
        if self._is_body_here:
            return await self._receive()
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise _TooSlow("the body took too long") from None
        self._n_body += len(message.get("body", b""))
        self._is_body_here = message["type"] != "http.request" or not message.get("more_body", False)
        if self._n_body > self._limits.body_bytes:
            raise BadRequestError(_too_large(self._limits.body_bytes))
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on, with the headers that all answers have."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = [*message.get("headers", ()), *self._added_headers()]
            message = {**message, "headers": headers}
        self._sending_since = self._loop.time()
        await self._send(message)
        self._sending_since = None

    def log(self, metrics: Metrics) -> None:
        """Note the end of the exchange."""
        path = route_of(self._scope)
        seconds = time.monotonic() - self._began
        metrics.notice_answer(path, self._status)
        logger.info(
            "%s %s %s %d %.3f s", self.request_id, self._scope["method"], path, self._status, seconds
        )

    def _added_headers(self) -> Iterable[tuple[bytes, bytes]]:
        yield b"x-request-id", self.request_id.encode()
        origin = self._headers.get(b"origin", b"")
        if origin.decode("latin-1") in self._access.origins:
            yield b"access-control-allow-origin", origin
            yield b"vary", b"Origin"
            if self._is_preflight():
                yield b"access-control-allow-methods", b"GET, POST"
                yield b"access-control-allow-headers", b"authorization, content-type, x-api-key"

    def _is_preflight(self) -> bool:
        return self._scope["method"] == "OPTIONS" and b"access-control-request-method" in self._headers

    def _text(self, name: bytes) -> str:
        return self._headers.get(name, b"").decode("latin-1")


class _TooSlow(Exception):
    """The client takes too long; its connection ends."""


def error_body(message: str, status: int, param: str | None = None) -> bytes:
    """Return an error as OpenAI's clients read it; those of Tinker show any JSON."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    said = {"message": message, "type": kind, "param": param, "code": status}
    return json.dumps({"error": said}).encode()


def route_of(scope: Scope) -> str:
    """Return the pattern that the path of a request matched, for metrics and the log."""
    return str(getattr(scope.get("route"), "path", "other"))


def _busy() -> tuple[int, str]:
    return 429, "too many requests at a time; ask again"


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit:,} bytes"


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():
        name = host
    return name.strip("[]").casefold()


__all__ = ["LOOPBACK", "OPEN_PATHS", "Access", "Guard", "Limits", "error_body", "route_of"]
