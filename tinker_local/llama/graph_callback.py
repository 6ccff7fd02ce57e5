"""Our kernels inside llama.cpp's graphs: attention, products of weights, and GELU.

llama.cpp's flash attention on CPUs has three kernels, chosen by shape, whose bits differ, and all go
through the cells of the cache in order. Ours is one (``kernels/attention_kernels.hpp``), and goes through
what a token sees in order of position. llama.cpp asks a callback before it computes a node of its graph
(``llama_context_params.cb_eval``), and the callback puts our kernel in the node
(``kernels/graph_callback.hpp``). That relies on ggml's own structures (``kernels/ggml.hpp``), which are
checked on nodes that the installed ggml makes.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import llama_cpp

from tinker_local import kernels
from tinker_local.llama.ggml import address


@cache
def graph_callback() -> int | None:
    """Return the address for ``cb_eval``; None where the installed ggml is not the one that is known."""
    try:
        return kernels.graph_callback({name: address(f"ggml_{name}") for name in kernels.GGML_FUNCTIONS})
    except ImportError:
        return None


def take_over(params: Any, graphs: kernels.GraphState) -> None:
    """Have the graphs of a context call our kernels; its parameters must not outlive ``graphs``."""
    params.cb_eval = ctypes.cast(graph_callback() or 0, llama_cpp.ggml_backend_sched_eval_callback)
    params.cb_eval_user_data = graphs.address
