"""No network connection is opened: the interpreter itself tells of each attempt, and it fails.

``tests/conftest.py`` installs this in the tests' process, and has this directory on the path of every
Python that the tests start, which then imports it by its name. An attempt is noted in a file, so that
nobody can swallow the error, and the whole session fails.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from typing import Any

LOG = "TINKER_LOCAL_TESTS_NETWORK_LOG"
"""Environment variable with the name of the file in which attempts are noted."""

_LOCAL = (None, "", "localhost", "127.0.0.1", "::1", b"localhost")
_BY_SOCKET = ("socket.connect", "socket.sendto", "socket.sendmsg")
_BY_NAME = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")


class NetworkError(Exception):
    """Something tried to reach a network."""


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _BY_SOCKET and _is_remote(arguments[0], arguments[1]):
        _refuse(event, arguments[1])
    elif event in _BY_NAME and arguments[0] not in _LOCAL:
        _refuse(event, arguments[0])


def _is_remote(one: socket.socket, address: Any) -> bool:
    """Whether it leaves this machine."""
    if one.family == getattr(socket, "AF_UNIX", None) or address is None:
        return False
    return address[0] not in _LOCAL


def _refuse(event: str, address: object) -> None:
    if path := os.environ.get(LOG):
        with open(path, "a", encoding="utf-8") as log:
            log.write(f"{event} {address!r} in {' '.join(sys.argv)[:200]}\n")
            log.writelines(traceback.format_stack(limit=8)[:-2])
    raise NetworkError(f"{event}: {address!r}")


if LOG in os.environ:
    sys.addaudithook(_watch)
