"""Functions of ggml that llama-cpp-python does not bind, from the libraries that it has loaded."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from typing import Any

from llama_cpp import llama_cpp

_WINDOWS_NAMES = ("ggml.dll", "ggml-base.dll", "libggml.dll", "libggml-base.dll")


def bind(name: str, result: Any, *arguments: Any) -> Any:
    """Return the function ``name`` with these ctypes, taken from where llama.cpp itself takes it.

    Raises:
        ImportError: the installed llama-cpp-python has no such function.
    """
    function = _find(name)
    function.restype, function.argtypes = result, arguments
    return function


def address(name: str) -> int:
    """Return the address of the function ``name``, for callers in C++.

    Raises:
        ImportError: the installed llama-cpp-python has no such function.
    """
    return ctypes.cast(_find(name), ctypes.c_void_p).value or 0


def _find(name: str) -> Any:
    for library in _libraries():
        if (function := getattr(library, name, None)) is not None:
            return function
    raise ImportError(f"llama-cpp-python {sys.modules['llama_cpp'].__version__} has no {name}")


def _libraries() -> Iterator[Any]:
    """llama's library, through which those it depends on are searched too, except on Windows.

    Opening ggml's file by its own name could load it a second time: a wheel holds several copies.
    """
    yield llama_cpp._lib
    if sys.platform == "win32":
        for name in _WINDOWS_NAMES:
            if (llama_cpp._base_path / name).exists():
                yield ctypes.CDLL(str(llama_cpp._base_path / name))
