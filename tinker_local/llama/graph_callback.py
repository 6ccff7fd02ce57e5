"""Our kernels inside llama.cpp's graphs: today attention, for batch invariance.

llama.cpp's flash attention on CPUs has three kernels, chosen by shape, whose bits differ. Ours has one
(``kernels/attention_kernels.hpp``). llama.cpp asks a callback before it computes a node of its graph
(``llama_context_params.cb_eval``), and the callback puts our kernel in the node
(``kernels/graph_callback.hpp``). That relies on ggml's own structures (``kernels/ggml.hpp``), which are
checked on nodes that the installed ggml makes.
"""

from __future__ import annotations

from functools import cache

from tinker_local import kernels
from tinker_local.llama.ggml import address


@cache
def graph_callback() -> int | None:
    """Return the address for ``cb_eval``; None where the installed ggml is not the one that is known."""
    try:
        return kernels.graph_callback(
            init=address("ggml_init"),
            free=address("ggml_free"),
            new_tensor_4d=address("ggml_new_tensor_4d"),
            set_name=address("ggml_set_name"),
            flash_attn_ext=address("ggml_flash_attn_ext"),
            set_rows=address("ggml_set_rows"),
            custom_4d=address("ggml_custom_4d"),
        )
    except ImportError:
        return None
