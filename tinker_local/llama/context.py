"""Contexts: a KV cache over a model's weights, where batches are decoded and logits are read."""

from __future__ import annotations

import ctypes
import os
import weakref
from types import SimpleNamespace
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from tinker_local import kernels
from tinker_local.errors import InternalServerError, RequestFailedError
from tinker_local.llama.aborting import new_abort_flag
from tinker_local.llama.adapter import Adapter
from tinker_local.llama.context_plan import FLASH_ATTN, ContextPlan
from tinker_local.llama.decode_batch import DecodeBatch, EmbeddingBatch
from tinker_local.llama.graph_callback import take_over
from tinker_local.llama.log import log
from tinker_local.llama.machine import give_back
from tinker_local.llama.model import Model, model_bytes
from tinker_local.options import KvType

_CACHE_TYPES: dict[KvType, int] = {"f32": 0, "f16": 1, "q8_0": 8}  # enum ggml_type

ABORTED = 2
"""What ``llama_decode`` returns after an abort."""


class DecodeError(InternalServerError):
    """``llama_decode`` did not compute a batch; ``code`` is what it returned."""

    def __init__(self, code: int) -> None:
        meaning = {1: "no room in the KV cache", ABORTED: "aborted", -1: "invalid batch"}
        said = f"; llama.cpp said: {log.last_errors()}" if log.last_errors() else ""
        super().__init__(f"llama_decode returned {code} ({meaning.get(code, 'computation failed')}){said}")
        self.code = code


class Context:
    """A KV cache over a model's weights, which several sequences share; made by a ``ContextPlan``.

    Attributes:
        plan: how the context was made.
        model: the weights.
        n_ctx: most tokens one sequence may hold: what was asked for, at most the model's training
            context.
        n_cells: tokens the KV cache holds in all sequences together; tokens that sequences share
            count once.
        n_sequences: most sequences at a time.
        n_batch: most tokens of one ``decode``.
        n_rows: most flagged tokens of one ``decode``.
        n_threads: threads that compute one token.
        n_threads_batch: threads that compute several tokens at once.
        batch: where the tokens of a ``decode`` are written.
        n_bytes: bytes of memory that the context takes at most, about: the cache, attention in steps, and
            logits where they are computed and where they are read.
        least_bytes: bytes that it takes at least; see ``ContextPlan.needed_bytes``.
        copies_whole: whether only whole sequences can be copied: states cannot step back, and what lies
            behind a sliding window is overwritten (``llama_kv_cache::find_slot``).
    """

    def __init__(self, model: Model, plan: ContextPlan) -> None:
        if plan.adapter is not None and plan.adapter.model is not model:
            raise ValueError(f"the adapter {plan.adapter.path} was loaded for another model")
        self._abort_flag = new_abort_flag()
        self._graphs = kernels.GraphState(
            products=plan.own_products,
            of_all_types=plan.batch_invariant,
            of_results=plan.own_attention and plan.flash_attn is False,
        )
        used = (self._abort_flag, self._graphs, model, plan.adapter)
        with model.adapters_lock, log.listening():
            handle = llama_cpp.llama_init_from_model(model.handle, _parameters(plan, self._graphs))
            if handle:  # within the block, which raises a Ctrl-C that came while llama.cpp sent messages
                self.close = weakref.finalize(self, _free_context, handle, os.getpid(), *used)
        if not handle:
            raise InternalServerError(
                f"llama.cpp cannot make a context of n_ctx={plan.n_ctx}, kv_type={plan.kv_type!r}, "
                f"flash_attn={plan.flash_attn} for {model.path}: "
                f"{log.last_errors() or 'no reason given'}. A smaller n_ctx needs less memory."
            )
        self.model, self.plan = model, plan
        self.n_ctx = min(plan.n_ctx, model.n_ctx_train)
        self.n_sequences = plan.n_sequences
        n_cells = int(llama_cpp.llama_n_ctx(handle))
        self.n_cells = n_cells
        if llama_cpp.llama_model_is_recurrent(model.handle):
            self.n_cells = plan.n_sequences * plan.n_ctx  # a state has room for all its tokens
        self.n_batch = int(llama_cpp.llama_n_batch(handle))
        self.n_rows = min(plan.n_rows, self.n_batch)
        self.n_bytes = plan.bytes_of(model, n_cells, self.n_rows)
        self.least_bytes = plan.needed_bytes(model)
        loses_cells = 0 < model.sliding_window < self.n_ctx
        self.copies_whole = model.is_recurrent or loses_cells
        self.batch = DecodeBatch(self.n_batch)
        self._handle: Any = handle
        self.set_threads(plan.n_threads, plan.n_threads_batch)
        self._memory: Any = llama_cpp.llama_get_memory(handle)
        self._view: NDArray[np.float32] = np.empty((0, model.n_vocab), np.float32)
        self._address = 0
        is_set = ctypes.cast(self._abort_flag.callback, llama_cpp.ggml_abort_callback)
        llama_cpp.llama_set_abort_callback(handle, is_set, ctypes.c_void_p(self._abort_flag.data))
        self._is_reserved = plan.adapter is None
        if plan.adapter is not None:
            self._apply(plan.adapter, plan.lora_scale)
        _contexts.add(self)

    def _apply(self, adapter: Adapter, scale: float) -> None:
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter.handle)
        llama_cpp.llama_set_adapters_lora(self._handle, handles, 1, (ctypes.c_float * 1)(scale))

    def decode(self, n_tokens: int) -> None:
        """Run the first ``n_tokens`` of ``batch``, with the GIL released.

        Raises:
            DecodeError: llama.cpp did not compute the batch.
            RequestFailedError: the weights could not be read, see ``MappedFiles``; or all products were to
                be ours, and some are not.
        """
        self.batch.struct.n_tokens = n_tokens
        self._decode(self.batch.struct)

    def decode_embeddings(
        self,
        embeddings: NDArray[np.float32],
        positions: NDArray[np.int32],
        sequence: int,
        n_rows: int,
        *,
        is_causal: bool,
    ) -> None:
        """Run embeddings in the place of tokens, in one sequence.

        Args:
            embeddings: float32 (n, n_embd), n at most ``n_batch``.
            positions: theirs, int32 (n_axes, n).
            sequence: the KV sequence.
            n_rows: how many, from the last, want their row of logits.
            is_causal: whether each sees only those before it. Else each sees all of them.

        Raises:
            DecodeError, RequestFailedError: see ``decode``.
        """
        batch = EmbeddingBatch(embeddings, positions, sequence, n_rows)
        if is_causal:
            self._decode(batch.struct)
            return
        llama_cpp.llama_set_causal_attn(self._handle, False)
        try:
            self._decode(batch.struct)
        finally:
            llama_cpp.llama_set_causal_attn(self._handle, True)

    def _decode(self, batch: Any) -> None:
        self._graphs.begin_decode()
        if self._is_reserved:
            code = llama_cpp.llama_decode(self._handle, batch)
        else:
            # The first decode with an adapter plans memory for the largest graph, for which llama.cpp walks
            # the list of all of the model's adapters. Nobody may load or free one meanwhile.
            with self.model.adapters_lock:
                code = llama_cpp.llama_decode(self._handle, batch)
            self._is_reserved = True
        self.model.files.check_read()
        if code != 0:
            raise DecodeError(code)
        if self.plan.batch_invariant and self._graphs.n_left:
            raise RequestFailedError(
                f"batch_invariant: llama.cpp computes products of {self.model.path.name} by its own "
                "kernels, chosen by the size of the batch; open the model without batch_invariant"
            )

    def set_threads(self, n_threads: int, n_threads_batch: int | None = None) -> None:
        """Change the numbers of threads that compute; see ``ContextPlan``."""
        self.n_threads, self.n_threads_batch = n_threads, n_threads_batch or n_threads
        llama_cpp.llama_set_n_threads(self._handle, self.n_threads, self.n_threads_batch)

    def threads_for(self, n_tokens: int) -> int:
        """Return how many threads compute that many tokens at once."""
        return self.n_threads if n_tokens == 1 else self.n_threads_batch

    def abort(self) -> None:
        """End the decode in progress, and all to come, soon: with a ``DecodeError`` of code ``ABORTED``.

        May be called from any thread.
        """
        self._abort_flag.set()

    @property
    def is_aborted(self) -> bool:
        """Whether ``abort`` was called, or the process is left."""
        return self._abort_flag.is_set

    def logits(self, n_rows: int) -> NDArray[np.float32]:
        """Return the flagged rows of the last ``decode``, in the order of the batch.

        float32, shape (n_rows, n_vocab): a view of llama.cpp's memory, valid until the next decode.
        """
        if n_rows == 0:
            return self._view[:0]
        pointer = llama_cpp.llama_get_logits(self._handle)
        address = ctypes.addressof(pointer.contents)
        if address != self._address or n_rows > len(self._view):
            self._view, self._address = floats_at(address, (n_rows, self.model.n_vocab)), address
        return self._view[:n_rows]

    def copy_sequence(self, source: int, target: int, end: int) -> None:
        """Make ``target`` hold the tokens of ``source`` before position ``end``.

        The two sequences share the cells. A recurrent state has no parts, so of such a model the whole
        sequence is copied.
        """
        end = -1 if self.model.is_recurrent else end
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, end)

    def truncate_sequence(self, sequence: int, end: int) -> None:
        """Forget a sequence's tokens from position ``end`` on."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, end, -1)

    def sequence_length(self, sequence: int) -> int:
        """Return how many tokens a sequence holds."""
        return int(llama_cpp.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def remove_sequence(self, sequence: int) -> None:
        """Forget a sequence."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)


def loaded_bytes() -> int:
    """Return the bytes of all model files and KV caches that this process holds."""
    contexts = [context.least_bytes for context in list(_contexts) if context.close.alive]
    return model_bytes() + sum(contexts)


_contexts: weakref.WeakSet[Context] = weakref.WeakSet()


def _parameters(plan: ContextPlan, graphs: kernels.GraphState) -> Any:
    """Return a plan in llama.cpp's words: ``llama_context_params``."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = plan.n_ctx
    params.n_batch = params.n_ubatch = plan.n_batch
    params.n_outputs_max = plan.n_rows
    params.n_seq_max = plan.n_sequences
    params.type_k = _CACHE_TYPES[plan.kv_type]
    params.type_v = _CACHE_TYPES[plan.kv_type]
    params.flash_attn_type = FLASH_ATTN[plan.flash_attn]
    if plan.own_attention or plan.own_products:
        take_over(params, graphs)
    params.offload_kqv = plan.kv_offload
    params.kv_unified = True
    params.swa_full = False
    params.no_perf = True
    return params


def floats_at(address: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return a view of memory. ``np.ctypeslib`` would make a type for each shape, and keep it for ever."""
    array = SimpleNamespace(
        __array_interface__={"version": 3, "data": (address, False), "typestr": "<f4", "shape": shape}
    )
    return np.asarray(array)


def _free_context(handle: Any, pid: int, *_used: object) -> None:
    """Free a context, and only then let go of what it uses: model, adapter and what its callbacks have.

    A finalizer keeps its arguments alive until it has run, so none of them can be freed first. A forked
    child frees nothing: a thread of the parent, which the child has not, may have been using it.
    """
    if pid == os.getpid():
        llama_cpp.llama_free(handle)
        give_back()
