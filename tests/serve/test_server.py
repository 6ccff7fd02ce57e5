"""The server on a real socket: slow and idle clients, and the end."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.serve.tiny_store import TINY
from tinker_local import BadRequestError, ServiceClient
from tinker_local.serve import Limits, Server, app

HEAD = b"POST /api/v1/create_session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"


def connect(server: Server) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=20)


def is_closed(connection: socket.socket) -> bool:
    """Wait for the end of a connection."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_it_answers_until_it_is_stopped(tiny_service: ServiceClient) -> None:
    with Server(app(tiny_service), drain_seconds=2) as server:
        assert server.port > 0
        with urllib.request.urlopen(f"{server.url}/healthz", timeout=20) as answer:
            assert answer.read() == b'{"status":"ok"}'
        idle = connect(server)
        with pytest.raises(BadRequestError, match=f"port {server.port}.*choose another --port"):
            Server(app(tiny_service), port=server.port)
    assert is_closed(idle)
    with pytest.raises(ConnectionError):
        connect(server)


def test_slow_clients_are_put_out(tiny_service: ServiceClient) -> None:
    application = app(tiny_service, limits=Limits(body_seconds=0.3))
    with Server(application, drain_seconds=1, idle_seconds=0.5) as server:
        silent, slow_head, slow_body = (connect(server) for _ in range(3))
        slow_head.sendall(b"GET / HT")
        slow_body.sendall(HEAD)
        began = time.monotonic()
        assert all(map(is_closed, (silent, slow_head, slow_body)))
        assert time.monotonic() - began < 10


def test_connections_are_limited(tiny_service: ServiceClient) -> None:
    with Server(app(tiny_service), drain_seconds=1, most_connections=3) as server:
        connections = [connect(server) for _ in range(8)]
        deadline = time.monotonic() + 20
        while len(ended := select.select(connections, [], [], 0.1)[0]) < 5:
            assert time.monotonic() < deadline
        (kept, *others) = (connection for connection in connections if connection not in ended)
        assert len(others) == 2
        kept.sendall(HEAD + b"{}")
        assert kept.recv(4096).startswith(b"HTTP/1.1 200")


def test_an_application_that_cannot_start_is_an_error() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with pytest.raises(Exception, match="the server cannot start"):
        Server(broken).start()


def stream(server: Server, **fields: Any) -> socket.socket:
    """Ask for a stream of tokens, none of which is a stop."""
    asked = {"model": TINY, "prompt": [1, 2], "max_tokens": 300, "n": 8, "logit_bias": {"256": -100}}
    body = json.dumps(asked | {"stream": True} | fields).encode()
    connection = connect(server)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def n_unfinished(service: ServiceClient) -> int:
    counted = service.get_telemetry().counters
    return counted.requests - counted.finished - counted.failed - counted.cancelled


def test_clients_that_leave_a_stream(tiny_service: ServiceClient, caplog: pytest.LogCaptureFixture) -> None:
    """Requests end, and nothing is written to a connection that is gone."""
    with Server(app(tiny_service), drain_seconds=1) as server:
        leaving = [stream(server) for _ in range(4)]
        assert all(connection.recv(4096) for connection in leaving)
        loop = server._server.servers[0].get_loop()
        loop.call_soon_threadsafe(time.sleep, 0.2)  # meanwhile tokens gather
        time.sleep(0.1)
        for number, connection in enumerate(leaving):
            if number % 2:  # closes at once, with a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        wait_until(lambda: n_unfinished(tiny_service) == 0)
    assert tiny_service.get_telemetry().counters.cancelled >= 3
    assert not caplog.records


def test_clients_that_read_nothing_are_put_out(tiny_service: ServiceClient) -> None:
    async def whole(request: Any) -> Response:
        return Response(bytes(2**24))  # more than the system's buffers hold

    async def in_parts(request: Any) -> Response:
        return StreamingResponse(bytes(2**20) for _ in range(16))

    application = app(tiny_service, limits=Limits(send_seconds=0.2))
    application.router.routes += [Route("/page/whole", whole), Route("/page/parts", in_parts)]
    server = Server(application, drain_seconds=1, idle_seconds=0.2)
    with server:
        slow = [connect(server) for _ in range(2)]
        for connection, path in zip(slow, (b"whole", b"parts"), strict=True):
            connection.sendall(b"GET /page/%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
            assert connection.recv(10)
        wait_until(lambda: not server._server.server_state.connections)
