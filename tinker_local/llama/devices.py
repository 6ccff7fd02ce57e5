"""The devices that llama.cpp can compute on besides the CPU."""

from __future__ import annotations

import ctypes
from typing import Any

from tinker_local.errors import BadRequestError
from tinker_local.llama.backend import start_backend
from tinker_local.llama.ggml import bind

_CPU, ACCELERATOR = 0, 3  # enum ggml_backend_dev_type; an accelerator helps the CPU (BLAS, AMX)

_count = bind("ggml_backend_dev_count", ctypes.c_size_t)
_get = bind("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
_name = bind("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
_type = bind("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
_memory = bind(
    "ggml_backend_dev_memory",
    None,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_size_t),
)


def devices() -> dict[str, int]:
    """Return llama.cpp's pointers to the devices besides the CPU, by its names for them (``CUDA0``)."""
    start_backend()
    found = (_get(index) for index in range(_count()))
    return {_name(device).decode(): device for device in found if _type(device) != _CPU}


def kinds() -> dict[str, int]:
    """Return the type (enum ggml_backend_dev_type) of each of ``devices``."""
    return {name: _type(device) for name, device in devices().items()}


def device_memory(names: str | None) -> int:
    """Return the bytes of memory of all these devices together; 0 for the CPU alone.

    Args:
        names: as for ``device_pointers``.
    """
    wanted = None if names is None else [name.strip().casefold() for name in names.split(",")]
    total, free, sizes = ctypes.c_size_t(), ctypes.c_size_t(), []
    for name, device in devices().items():
        if _type(device) != ACCELERATOR and (wanted is None or name.casefold() in wanted):
            _memory(device, free, total)
            sizes.append(total.value)
    return sum(sizes)


def device_pointers(names: str | None) -> Any:
    """Return the array for ``llama_model_params.devices``, ending in a null; None leaves it to llama.cpp.

    Args:
        names: device names with commas between, in the order of their layers; "none" for the CPU alone.

    Raises:
        BadRequestError: there is no such device, or one is named twice. The message lists the devices.
    """
    if names is None:
        return None
    wanted = [] if names.strip().casefold() == "none" else [name.strip() for name in names.split(",")]
    known = {name.casefold(): device for name, device in devices().items()}
    for name in wanted:
        if name.casefold() not in known:
            there = ", ".join(devices()) or "none (this build of llama-cpp-python uses the CPU alone)"
            raise BadRequestError(f"devices is {names!r}: there is no device {name!r}. There are: {there}")
    pointers = [known[name.casefold()] for name in wanted]
    if len(set(pointers)) < len(pointers):
        raise BadRequestError(f"devices is {names!r}: it names a device twice")
    return (ctypes.c_void_p * (len(pointers) + 1))(*pointers, None)
