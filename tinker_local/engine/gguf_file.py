"""What the head of a GGUF file says, read by llama.cpp's own reader: quick, and no data is read."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinker_local.engine.ggml import bind
from tinker_local.engine.log import log
from tinker_local.errors import BadRequestError

UINT32, FLOAT32, STRING = 4, 6, 8  # enum gguf_type
_N_DIMENSIONS = 4  # GGML_MAX_DIMS


class _Params(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


_pointer, _index, _text = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p
_open = bind("gguf_init_from_file", _pointer, _text, _Params)
_free = bind("gguf_free", None, _pointer)
_find_key = bind("gguf_find_key", _index, _pointer, _text)
_key_type = bind("gguf_get_kv_type", ctypes.c_int, _pointer, _index)
_string = bind("gguf_get_val_str", _text, _pointer, _index)
_uint32 = bind("gguf_get_val_u32", ctypes.c_uint32, _pointer, _index)
_n_tensors = bind("gguf_get_n_tensors", _index, _pointer)
_tensor_name = bind("gguf_get_tensor_name", _text, _pointer, _index)
_tensor_type = bind("gguf_get_tensor_type", ctypes.c_int, _pointer, _index)
_tensor_shape = bind("gguf_get_tensor_ne", ctypes.POINTER(ctypes.c_int64), _pointer, _index)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's ``type`` (enum ggml_type) and its four extents, the one that varies fastest first."""

    type: int
    shape: tuple[int, ...]


class GgufFile:
    """The head of a GGUF file.

    Attributes:
        path: the file.
        tensors: its tensors, by name.
        context_length: tokens that a model was trained for; None if it does not say.
    """

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            BadRequestError: it is no GGUF file, or is cut off in its head; the reason is llama.cpp's.
        """
        log.clear()
        handle = _open(os.fsencode(path), _Params(no_alloc=True, ctx=None))
        if not handle:
            raise BadRequestError(f"{path} cannot be read: {log.last_errors() or 'no reason given'}")
        try:
            self.path = path
            self.tensors = dict(_tensor(handle, i) for i in range(_n_tensors(handle)))
            self._keys = {key: _value(handle, key) for key in _KEYS}
            self.context_length = _number(handle, f"{self.text('general.architecture')}.context_length")
        finally:
            _free(handle)

    def type_of(self, key: str) -> int | None:
        """Return the type of one of the keys that are read (enum gguf_type), None if it is not there."""
        return self._keys[key][0]

    def text(self, key: str) -> str | None:
        """Return the value of one of the keys that are read, None if it is not there or is no text."""
        return self._keys[key][1]


_KEYS = (
    "general.type",
    "general.architecture",
    "adapter.type",
    "adapter.lora.alpha",
    "adapter.alora.invocation_tokens",
)


def _tensor(handle: Any, index: int) -> tuple[str, TensorInfo]:
    shape = tuple(_tensor_shape(handle, index)[:_N_DIMENSIONS])
    return _tensor_name(handle, index).decode(), TensorInfo(_tensor_type(handle, index), shape)


def _value(handle: Any, key: str) -> tuple[int | None, str | None]:
    index = _find_key(handle, key.encode())
    if index < 0:
        return None, None
    kind = _key_type(handle, index)
    return kind, _string(handle, index).decode("utf-8", "replace") if kind == STRING else None


def _number(handle: Any, key: str) -> int | None:
    index = _find_key(handle, key.encode())
    return int(_uint32(handle, index)) if index >= 0 and _key_type(handle, index) == UINT32 else None


def is_adapter(path: Path) -> bool:
    """Whether a file says that it holds an adapter and not a whole model; a broken file says nothing."""
    try:
        return GgufFile(path).text("general.type") == "adapter"
    except BadRequestError:
        return False
