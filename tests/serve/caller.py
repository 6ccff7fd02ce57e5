"""Caller: asks an ASGI application in this process, as a client does over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Caller(AbstractContextManager["Caller"]):
    """Runs the application's lifespan, and requests, on an event loop of its own."""

    def __init__(self, app: Any, host: str = "127.0.0.1:8000") -> None:
        self.app, self.host = app, host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._lifespan = self._app_lifespan()
        self.run(self._lifespan.__aenter__()).result(60)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.run(self._lifespan.__aexit__(None, None, None)).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _app_lifespan(self) -> Any:
        return self.app.router.lifespan_context(self.app)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.begin("POST", path, body, **headers).result(60)

    def get(self, path: str, **headers: str) -> Answer:
        return self.begin("GET", path, **headers).result(60)

    def begin(self, method: str, path: str, body: Any = None, **headers: str) -> Future[Answer]:
        """Send a request; the future has its answer. ``x_api_key`` is the header x-api-key."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {"host": self.host} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.run(self._ask(method, path, raw, named))

    async def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        sent = list[Any]()
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            for message in messages:
                return message
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        path, _, query = path.partition("?")
        await self.app(
            {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": method,
                "scheme": "http",
                "path": path,
                "raw_path": path.encode(),
                "root_path": "",
                "query_string": query.encode(),
                "headers": [(k.encode(), v.encode("latin-1")) for k, v in headers.items()],
                "client": ("127.0.0.1", 50000),
                "server": ("127.0.0.1", 8000),
                "state": {},
            },
            receive,
            send,
        )
        start = sent[0]
        named = {k.decode().lower(): v.decode("latin-1") for k, v in start["headers"]}
        return Answer(start["status"], named, b"".join(m.get("body", b"") for m in sent[1:]))
