"""Starts llama.cpp: once in a process, for the first model or list of devices, never on import.

Whatever asks llama.cpp about devices, buffers or models goes through ``start_backend`` first.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import llama_cpp

from tinker_local import kernels
from tinker_local.llama.amx import keep_off_amx
from tinker_local.llama.log import log


@dataclass(frozen=True, slots=True)
class Backend:
    """llama.cpp after its start.

    Attributes:
        avoids_extra_buffers: whether models must be loaded without extra buffers, repacked weights
            included, to keep off AMX.
    """

    avoids_extra_buffers: bool


_lock = threading.Lock()
_backend: Backend | None = None


def start_backend() -> Backend:
    """Start llama.cpp, unless this process has done so; return what has to be known of it."""
    global _backend
    with _lock:
        if _backend is None:
            # The order counts. Messages of the next two steps belong in our log. llama.cpp decides about
            # AMX when anybody first lists its kinds of buffers, which loading a model does. Once we have
            # permission, llama.cpp would get it too.
            log.install()
            avoids_extra_buffers = keep_off_amx()
            kernels.request_amx()
            llama_cpp.llama_backend_init()
            _backend = Backend(avoids_extra_buffers)
        return _backend


def _after_fork() -> None:
    """Make the lock anew: a thread of the parent may have held it, and does not exist here."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
