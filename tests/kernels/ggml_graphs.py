"""ggml's graphs, made and computed from Python, with our callback asked as llama.cpp asks it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinker_local import kernels
from tinker_local.llama.ggml import bind
from tinker_local.llama.graph_callback import graph_callback

POINTER = ctypes.c_void_p
F32, F16, I32, I64 = 0, 1, 26, 27  # enum ggml_type
_TYPES = {
    np.dtype(np.float32): F32,
    np.dtype(np.float16): F16,
    np.dtype(np.int32): I32,
    np.dtype(np.int64): I64,
}
_ROOM = 1 << 20  # bytes for a graph and its tensors, their data aside


class InitParams(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("memory", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


_init = bind("ggml_init", POINTER, InitParams)
_free = bind("ggml_free", None, POINTER)
new_tensor = bind("ggml_new_tensor_4d", POINTER, POINTER, ctypes.c_int, *[ctypes.c_int64] * 4)
data_of = bind("ggml_get_data", POINTER, POINTER)
op_of = bind("ggml_op_desc", ctypes.c_char_p, POINTER)
flash_attn_ext = bind("ggml_flash_attn_ext", POINTER, *[POINTER] * 5, *[ctypes.c_float] * 3)
mul_mat = bind("ggml_mul_mat", POINTER, *[POINTER] * 3)
mul_mat_id = bind("ggml_mul_mat_id", POINTER, *[POINTER] * 4)
add_sinks = bind("ggml_flash_attn_ext_add_sinks", None, POINTER, POINTER)
set_rows = bind("ggml_set_rows", POINTER, *[POINTER] * 4)
cast = bind("ggml_cast", POINTER, POINTER, POINTER, ctypes.c_int)
view_4d = bind("ggml_view_4d", POINTER, POINTER, POINTER, *[ctypes.c_int64] * 4, *[ctypes.c_size_t] * 4)
permute = bind("ggml_permute", POINTER, POINTER, POINTER, *[ctypes.c_int] * 4)
_new_graph = bind("ggml_new_graph", POINTER, POINTER)
_expand = bind("ggml_build_forward_expand", None, POINTER, POINTER)
_n_nodes = bind("ggml_graph_n_nodes", ctypes.c_int, POINTER)
_node = bind("ggml_graph_node", POINTER, POINTER, ctypes.c_int)
_compute = bind("ggml_graph_compute_with_ctx", ctypes.c_int, POINTER, POINTER, ctypes.c_int)


@contextmanager
def ggml_memory(n_bytes: int) -> Iterator[int]:
    """Give a context of ggml's, with room for ``n_bytes`` of data."""
    context = _init(InitParams(n_bytes + _ROOM, None, False))
    yield context
    _free(context)


def tensor(context: int, array: NDArray[Any]) -> int:
    """Return a tensor with an array's numbers; its dimensions are in the other order."""
    array = np.ascontiguousarray(array)
    found = new_tensor(context, _TYPES[array.dtype], *(*array.shape[::-1], 1, 1, 1)[:4])
    ctypes.memmove(data_of(found), array.ctypes.data, array.nbytes)
    return int(found)


def floats_of(node: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a copy of a float32 tensor's numbers."""
    numbers = (ctypes.c_float * int(np.prod(shape))).from_address(data_of(node))
    return np.array(numbers, np.float32).reshape(shape)


def ask(node: int, state: kernels.GraphState | None) -> None:
    """Call the callback as llama.cpp does before it computes a node."""
    found = graph_callback()
    assert found is not None
    callback = ctypes.CFUNCTYPE(ctypes.c_bool, POINTER, ctypes.c_bool, POINTER)(found)
    assert callback(node, True, state.address if state else None) is False


class Graph:
    """A graph of some last nodes, and of what they need, in that order."""

    def __init__(self, context: int, last: Sequence[int]) -> None:
        self._context, self._graph = context, _new_graph(context)
        for node in last:
            _expand(self._graph, node)

    def compute(self, state: kernels.GraphState, n_threads: int = 1) -> None:
        """Ask for all nodes, then compute them."""
        for number in range(_n_nodes(self._graph)):
            ask(_node(self._graph, number), state)
        assert _compute(self._context, self._graph, n_threads) == 0
