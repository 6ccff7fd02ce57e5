"""Server: uvicorn on a thread of its own, over an application; it ends gracefully.

uvicorn would take the process' signals for itself. On a thread it takes none: signals
reach the main thread, as with every other command, and ``stop`` drains what runs.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import uvicorn

from tinker_local.errors import BadRequestError, TinkerError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

IDLE_SECONDS = 75.0
"""For which a connection may be open without a whole request on it."""
MOST_CONNECTIONS = 4096
_BACKLOG = 2048

logger = logging.getLogger(__name__)


class Server:
    """Serves an application at an address until it is stopped; as a context manager, within the block.

    Args:
        app: an ASGI application.
        host: name or address to listen at.
        port: TCP port; 0 picks a free one.
        drain_seconds: how long requests that run may go on after ``stop``.
        idle_seconds, most_connections: connections beyond these are closed, the longest idle first.

    Raises:
        BadRequestError: nothing can listen there.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        drain_seconds: float = 10.0,
        idle_seconds: float = IDLE_SECONDS,
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        self._idle_seconds, self._most_connections = idle_seconds, most_connections
        self._socket = _listen(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=int(idle_seconds),
            timeout_graceful_shutdown=int(drain_seconds),
            callback_notify=self._close_idle,
            timeout_notify=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="tinker-local-server", daemon=True)
        self._idle_since: dict[Any, float] = {}  # uvicorn's protocols
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """The address for clients on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{self.port}"

    def start(self) -> Self:
        """Begin to serve; returns once connections are accepted.

        Raises:
            TinkerError: the application failed to start.
        """
        raise_file_limit()
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise TinkerError(f"the server cannot start: {self._failure}")
            time.sleep(0.005)
        return self

    def wait(self) -> None:
        """Wait until the server ends, as by ``stop`` on another thread."""
        while self._thread.is_alive():
            self._thread.join(1.0)  # a signal's handler runs between

    def stop(self) -> None:
        """Accept nothing more, let requests that run go on for ``drain_seconds``, and end."""
        self._server.should_exit = True
        self.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            self._server.run([self._socket])
        except BaseException as error:  # SystemExit, where the application fails to start
            self._failure = error

    async def _close_idle(self) -> None:
        """Close connections without a request for long, also those that send a head byte by byte."""
        now, connections = time.monotonic(), list[Any](self._server.server_state.connections)
        idle = [c for c in connections if c.cycle is None or _is_over(c)]
        self._idle_since = {c: self._idle_since.get(c, now) for c in idle}
        n_over = len(connections) - self._most_connections
        oldest = sorted(self._idle_since.items(), key=lambda item: item[1])
        for number, (connection, since) in enumerate(oldest):
            if number < n_over or now - since > self._idle_seconds:
                transport = connection.transport
                transport.abort() if transport.is_closing() else transport.close()


def _is_over(connection: Any) -> bool:
    """Whether nothing more will be written; what is closing may wait for a client that reads nothing."""
    return bool(connection.cycle.response_complete or connection.transport.is_closing())


def raise_file_limit() -> None:
    """Let this process have as many connections as the system allows; macOS begins with 256."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, 2 * MOST_CONNECTIONS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        raise BadRequestError(
            f"nothing can listen at {host}, port {port}: {error}; choose another --port, 0 for a free one"
        ) from None
    return listening


__all__ = ["Server", "raise_file_limit"]
