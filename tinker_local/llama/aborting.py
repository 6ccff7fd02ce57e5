"""Flags that end what llama.cpp computes or loads: each context and each load has one."""

from __future__ import annotations

import os
import threading
import weakref

from tinker_local import kernels

_flags: weakref.WeakSet[kernels.AbortFlag] = weakref.WeakSet()
_lock = threading.Lock()


def new_abort_flag() -> kernels.AbortFlag:
    """Return a flag that ``abort_all`` will set too."""
    flag = kernels.AbortFlag()
    with _lock:
        _flags.add(flag)
    return flag


def abort_all() -> None:
    """End all that llama.cpp computes or loads in this process, for good; from any thread."""
    with _lock:
        flags = list(_flags)
    for flag in flags:
        flag.set()


def _after_fork() -> None:
    """Make the lock anew: a thread of the parent may have held it, and does not exist here."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
