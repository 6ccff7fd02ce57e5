"""Our own attention inside llama.cpp's graphs, for batch invariance.

llama.cpp's flash attention on CPUs has three kernels, chosen by shape, whose bits differ. So its nodes are
made custom operations that call ours (``kernels/attention_kernels.hpp``), in the callback which llama.cpp
asks before it computes a node (``llama_context_params.cb_eval``). That relies on ``struct ggml_tensor`` and
on what flash attention and custom operations keep in ``op_params``, which is checked here on nodes that the
installed ggml makes itself.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from tinker_local import kernels
from tinker_local.llama.ggml import bind

_F32, _F16 = 0, 1  # enum ggml_type
_ROOM = 1 << 16  # bytes for a few tensors without data


class _Tensor(ctypes.Structure):
    """``struct ggml_tensor``, as ``kernels/graph_attention.cpp`` has it."""

    _fields_ = (
        ("type", ctypes.c_int32),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int32),
        ("op_params", ctypes.c_char * 64),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


class _Flash(ctypes.Structure):
    _fields_ = (
        ("scale", ctypes.c_float),
        ("max_bias", ctypes.c_float),
        ("soft_cap", ctypes.c_float),
        ("precision", ctypes.c_int32),
    )


class _Custom(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("n_tasks", ctypes.c_int32), ("user_data", ctypes.c_void_p))


class _Init(ctypes.Structure):
    """``struct ggml_init_params``."""

    _fields_ = (("size", ctypes.c_size_t), ("memory", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@cache
def attention_callback() -> int | None:
    """Return the address for ``cb_eval``; None where the installed ggml is not the one that is known."""
    try:
        free = bind("ggml_free", None, ctypes.c_void_p)
        context = bind("ggml_init", ctypes.c_void_p, _Init)(_Init(_ROOM, None, True))
    except ImportError:
        return None
    try:
        return _callback(context)
    except ImportError:
        return None
    finally:
        free(context)


def _callback(context: int) -> int | None:
    new = bind("ggml_new_tensor_4d", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, *[ctypes.c_int64] * 4)
    query, key, value = (
        new(context, kind, *sides)
        for kind, sides in ((_F32, (16, 3, 4, 1)), (_F16, (16, 8, 2, 1)), (_F16, (32, 8, 2, 1)))
    )
    mask = new(context, _F16, 8, 64, 1, 1)
    attend = bind("ggml_flash_attn_ext", ctypes.c_void_p, *[ctypes.c_void_p] * 5, *[ctypes.c_float] * 3)
    flash = _Tensor.from_address(attend(context, query, key, value, mask, 0.5, 0.25, 2.0))
    operation = kernels.graph_attention(-1, -1)[1]
    make = bind(
        "ggml_custom_4d",
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int,
        *[ctypes.c_int64] * 4,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_void_p,
    )
    sources = (ctypes.c_void_p * 2)(query, key)
    custom = _Tensor.from_address(make(context, _F32, 5, 6, 7, 8, sources, 2, operation, -1, query))
    wanted = (
        (_as(_Flash, flash), (0.5, 0.25, 2.0), "scale max_bias soft_cap"),
        (_as(_Custom, custom), (operation, -1, query), "operation n_tasks user_data"),
        (flash, (_F32, None, None), "type data view_src"),
        (_Tensor.from_address(key), (_F16, None), "type data"),
    )
    told = all(
        tuple(getattr(found, name) for name in names.split()) == values for found, values, names in wanted
    )
    shapes = (
        list(flash.ne) == [32, 4, 3, 1]
        and list(custom.ne) == [5, 6, 7, 8]
        and list(custom.nb) == [4, 20, 120, 840]
        and list(flash.src) == [query, key, value, mask] + [None] * 6
        and list(custom.src) == [query, key] + [None] * 8
        and flash.op != custom.op
    )
    named = _is_named(query)
    return int(kernels.graph_attention(flash.op, custom.op)[0]) if told and shapes and named else None


def _as(kind: Any, node: _Tensor) -> Any:
    return kind.from_buffer_copy(
        bytes(ctypes.string_at(ctypes.addressof(node) + _Tensor.op_params.offset, 64))
    )


def _is_named(tensor: int) -> bool:
    """Whether a name, which lies behind the pointer to the data, is where it is thought to be."""
    set_name = bind("ggml_set_name", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
    set_name(tensor, b"tinker_local")
    return bool(_Tensor.from_address(tensor).name == b"tinker_local")
