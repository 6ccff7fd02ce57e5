"""The server on a real socket: slow and idle clients, and the end."""

from __future__ import annotations

import select
import socket
import time
import urllib.request
from typing import Any

import pytest

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
