"""llama.cpp with nothing around it: the reference for numbers and for speed.

Talks to ``llama_cpp`` directly, in the same configuration as the engine, and shares none of its code. Our
kernels are put into its graphs where they are asked for.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.own_kernels import own_products
from tinker_local.kernels import GraphState
from tinker_local.llama.graph_callback import graph_callback
from tinker_local.llama.machine import default_threads
from tinker_local.options import Options


class BareLoop:
    def __init__(
        self,
        path: Path,
        *,
        n_ctx: int = 2048,
        n_sequences: int = 1,
        n_batch: int = 512,
        exact: bool = False,
        own_kernels: bool = False,
    ) -> None:
        """Make a context.

        Args:
            path: the model's file.
            n_ctx: cells.
            n_sequences: most sequences.
            n_batch: most tokens of a batch.
            exact: float32 cache and no flash attention, whose numbers hardly depend on the batch.
            own_kernels: attention and products by our kernels, as in the engine.
        """
        products = own_kernels and own_products(Options())
        model_params = llama_cpp.llama_model_default_params()
        model_params.use_extra_bufts = not products
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        assert self.model
        self.n_batch = n_batch
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, n_batch, n_batch
        params.n_seq_max, params.kv_unified = n_sequences, True
        params.n_threads = params.n_threads_batch = _threads()
        if exact:
            params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._graphs = GraphState(products=products)
        if own_kernels:
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
            params.cb_eval = ctypes.cast(graph_callback() or 0, llama_cpp.ggml_backend_sched_eval_callback)
            params.cb_eval_user_data = self._graphs.address
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        assert self.context
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(n_batch, 0, 1)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(self.memory, True)

    def fork(self, n_sequences: int) -> None:
        """Make sequences 1 to n - 1 copies of sequence 0."""
        for sequence in range(1, n_sequences):
            llama_cpp.llama_memory_seq_cp(self.memory, 0, sequence, -1, -1)

    def decode(self, tokens: Any, positions: Any, sequences: Sequence[int], flags: Any) -> float:
        """Decode one batch; return the seconds llama.cpp took."""
        n = len(tokens)
        batch = self.batch
        batch.n_tokens = n
        np.ctypeslib.as_array(batch.token, (n,))[:] = tokens
        np.ctypeslib.as_array(batch.pos, (n,))[:] = positions
        np.ctypeslib.as_array(batch.n_seq_id, (n,))[:] = 1
        np.ctypeslib.as_array(ctypes.cast(batch.logits, ctypes.POINTER(ctypes.c_int8)), (n,))[:] = flags
        for i, sequence in enumerate(sequences):
            batch.seq_id[i][0] = sequence
        self._graphs.begin_decode()
        start = time.perf_counter()
        code = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_synchronize(self.context)
        assert code == 0, code
        return time.perf_counter() - start

    def logits(self, n_rows: int) -> NDArray[np.float32]:
        rows = np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), (n_rows, self.n_vocab))
        return rows.copy()

    def prompt_logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every position of a prompt, from one decode if it fits ``n_batch``."""
        self.clear()
        rows = []
        for start in range(0, len(tokens), self.n_batch):
            chunk = tokens[start : start + self.n_batch]
            n = len(chunk)
            self.decode(chunk, np.arange(start, start + n), [0] * n, np.ones(n))
            rows.append(self.logits(n))
        return np.concatenate(rows)


def _threads() -> int:
    """As many as our clients take."""
    return int(os.environ.get("TINKER_LOCAL_N_THREADS") or default_threads())


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """In float64, over the last axis."""
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
