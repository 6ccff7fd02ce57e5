"""How the installed llama.cpp was built, and the devices that it can use."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import llama_cpp

from tinker_local.llama.backend import start_backend
from tinker_local.llama.devices import ACCELERATOR, devices, kinds
from tinker_local.llama.ggml import bind

_KINDS = {1: "GPU", 2: "integrated GPU", ACCELERATOR: "accelerator"}  # enum ggml_backend_dev_type


@dataclass(frozen=True, slots=True)
class Device:
    """A device besides the CPU.

    Attributes:
        name: llama.cpp's name, as the option ``devices`` takes it.
        kind: "GPU", "integrated GPU", "accelerator" or "device".
        description: the maker's name.
        n_free: bytes of its memory that are free.
        n_bytes: bytes of its memory.
    """

    name: str
    kind: str
    description: str
    n_free: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Build:
    """The installed llama.cpp.

    Attributes:
        package: version of llama-cpp-python.
        version: version of llama.cpp; "unknown" where it does not say.
        ggml: version and commit of ggml.
        features: the switches of ``llama_print_system_info``, by backend (``CPU``, ``CUDA``).
        offloads: whether it can compute on GPUs.
        maps_files: whether it maps model files into memory.
    """

    package: str
    version: str
    ggml: str
    features: dict[str, dict[str, str]]
    offloads: bool
    maps_files: bool


def build() -> Build:
    """Return how llama.cpp was built."""
    start_backend()
    return Build(
        package=llama_cpp.__version__,
        version=_text("llama_version") or "unknown",
        ggml=" ".join(filter(None, (_text("ggml_version"), _text("ggml_commit")))) or "unknown",
        features=parse_system_info(llama_cpp.llama_print_system_info().decode()),
        offloads=bool(llama_cpp.llama_supports_gpu_offload()),
        maps_files=bool(llama_cpp.llama_supports_mmap()),
    )


def parse_system_info(text: str) -> dict[str, dict[str, str]]:
    """Return the switches by backend, from ``CPU : AVX = 1 | AVX2 = 1 | CUDA : ARCHS = 900 |``."""
    features: dict[str, dict[str, str]] = {}
    backend = ""
    for part in text.split("|"):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if ":" in name:
            backend, _, name = (piece.strip() for piece in name.rpartition(":"))
        if equals:
            features.setdefault(backend, {})[name] = value
    return features


def found_devices() -> list[Device]:
    """Return the devices besides the CPU, with their memory."""
    describe = bind("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
    size_p = ctypes.POINTER(ctypes.c_size_t)
    ask_memory = bind("ggml_backend_dev_memory", None, ctypes.c_void_p, size_p, size_p)
    found, types = [], kinds()
    for name, pointer in devices().items():
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        ask_memory(pointer, ctypes.byref(free), ctypes.byref(total))
        kind = _KINDS.get(types[name], "device")
        found.append(Device(name, kind, describe(pointer).decode(), free.value, total.value))
    return found


def _text(function: str) -> str | None:
    try:
        said = bind(function, ctypes.c_char_p)()
    except ImportError:  # an older one
        return None
    return said.decode() if said else None
