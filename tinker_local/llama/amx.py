"""Keeps llama.cpp off AMX, the matrix unit of Intel's servers, where some builds end the whole process.

llama.cpp writes the unit's settings in a way that GCC removes as having no effect. A general protection
fault follows with the first quantized matrix (https://github.com/ggml-org/llama.cpp/issues/20824). Without
AMX, llama.cpp uses its AVX-512 code. ``TINKER_LOCAL_AMX=1`` is for builds that work.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import llama_cpp

from tinker_local.llama.ggml import bind

_SMALL = 8192
"""Bytes of a signal stack that has no room for AMX's registers, and room for all others."""


class _Stack(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def keep_off_amx() -> bool:
    """Make llama.cpp decide, now and for good, not to use AMX; return whether it may use AMX nevertheless.

    llama.cpp requests permission from Linux when it first lists its kinds of buffers, and remembers the
    answer. Linux refuses while the signal stack of any thread is too small for the unit's registers
    (Documentation/arch/x86/xstate.rst), so this thread has such a stack for the moment of the request.

    Where the process has permission already, because torch or another library requested it, Linux cannot
    refuse. The answer is True then, and models must be loaded without extra buffers, of which AMX is one.
    """
    if not _is_built_in() or os.environ.get("TINKER_LOCAL_AMX") == "1":
        return False
    with _small_signal_stack(), _no_standard_error():
        return "AMX" in _buffer_kinds()


def _is_built_in() -> bool:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return "AMX_INT8 = 1" in llama_cpp.llama_print_system_info().decode()


def _buffer_kinds() -> list[str]:
    """Return the names of the CPU's kinds of buffers besides the plain one."""
    name = bind("ggml_backend_buft_name", ctypes.c_char_p, ctypes.c_void_p)
    by_type = bind("ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int)
    registry = bind("ggml_backend_dev_backend_reg", ctypes.c_void_p, ctypes.c_void_p)
    find = bind("ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
    cpu = by_type(0)  # enum ggml_backend_dev_type
    address = find(registry(cpu), b"ggml_backend_dev_get_extra_bufts")
    if not address:
        return []
    kinds = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(cpu)
    names: list[str] = []
    while kinds[len(names)]:
        names.append(name(kinds[len(names)]).decode())
    return names


@contextmanager
def _small_signal_stack() -> Iterator[None]:
    sigaltstack = ctypes.CDLL(None).sigaltstack
    memory = ctypes.create_string_buffer(_SMALL)
    small, before = _Stack(ctypes.addressof(memory), 0, _SMALL), _Stack()
    changed = sigaltstack(ctypes.byref(small), ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if changed:
            sigaltstack(ctypes.byref(before), None)


@contextmanager
def _no_standard_error() -> Iterator[None]:
    """Discard llama.cpp's message that it may not use AMX.

    The message goes to the C library's ``stderr``, past llama.cpp's log: only the descriptor catches it.
    """
    try:
        before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # the process has no standard error
        yield
        return
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
