"""How a context is to be made, and the memory that it will take: known before there is a context."""

from __future__ import annotations

from dataclasses import dataclass

from tinker_local.llama.adapter import Adapter
from tinker_local.llama.model import Model
from tinker_local.options import KvType

KV_BYTES: dict[KvType, float] = {"f32": 4, "f16": 2, "q8_0": 34 / 32}
"""Bytes per KV-cache element, by ``kv_type``."""

FLASH_ATTN: dict[bool | None, int] = {None: -1, False: 0, True: 1}
"""``enum llama_flash_attn_type``, by ``flash_attn``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextPlan:
    """Every choice about a context. ``Context(model, plan)`` applies the plan and adds none.

    With an ``adapter``, each weight W that it has factors A and B for counts as W + c B A, where
    c = ``lora_scale`` * alpha / rank, or ``lora_scale`` where the file's alpha is 0 or missing
    (``get_scale`` in llama.cpp's ``llama-adapter.h``). At ``lora_scale`` 0 llama.cpp leaves it out.

    Attributes:
        n_ctx: most tokens of one sequence.
        n_sequences: most sequences at a time.
        n_batch: most tokens of one ``decode``.
        n_rows: most flagged tokens of one ``decode``.
        n_threads: threads that compute one token.
        n_threads_batch: threads that compute several tokens at once. None: as many.
        kv_type: number format of keys and values.
        flash_attn: whether attention is fused ("flash attention"). None: llama.cpp decides.
        kv_offload: whether a GPU that has a layer's weights keeps its keys and values too.
        adapter: a LoRA of the same model.
        lora_scale: how strongly the adapter counts.
        own_attention: whether our kernels compute attention in place of ggml's: flash attention, or without
            it the products of queries, keys and values.
        own_products: whether our kernels compute products of weights, which must not be repacked. Those
            with rare types of packed weights are llama.cpp's, unless ``batch_invariant``.
        batch_invariant: whether a decode fails if llama.cpp's kernels compute attention or a product.
    """

    n_ctx: int
    n_sequences: int
    n_batch: int
    n_rows: int
    n_threads: int
    n_threads_batch: int | None = None
    kv_type: KvType = "f16"
    flash_attn: bool | None = None
    kv_offload: bool = True
    adapter: Adapter | None = None
    lora_scale: float = 1.0
    own_attention: bool = False
    own_products: bool = False
    batch_invariant: bool = False

    def needed_bytes(self, model: Model) -> int:
        """Return the bytes that a context takes, at least: cells, attention in steps, and logits.

        Layers with a sliding window have fewer cells. llama.cpp does not tell which layers these are, so
        all are taken for such, and nothing is refused that would have fitted.
        """
        n_cells = self.n_ctx
        if model.sliding_window:
            n_cells = min(n_cells, model.sliding_window + self.n_batch)
        return self.bytes_of(model, n_cells, self.n_rows)

    def bytes_of(self, model: Model, n_cells: int, n_rows: int) -> int:
        """Return the bytes of so many cells, of attention to them, and of rows of logits."""
        cells = int(n_cells * cell_bytes(model, self.kv_type))
        return cells + self._scores_bytes(model, n_cells) + logits_bytes(model, n_rows)

    def _scores_bytes(self, model: Model, n_cells: int) -> int:
        """Return the bytes of a layer's attention: in steps, a float32 for each head, token and key.

        Flash attention keeps none of these.
        """
        n_keys = n_cells // model.tokens_per_key
        return 4 * model.n_head * self.n_batch * n_keys if self.flash_attn is False else 0


def cell_bytes(model: Model, kv_type: KvType) -> float:
    """Return the bytes that one token takes in a KV cache, in all layers together."""
    return model.kv_numbers * KV_BYTES[kv_type]


def logits_bytes(model: Model, n_rows: int) -> int:
    """Return the bytes of rows of float32 logits, where they are computed and where they are read."""
    return 2 * 4 * n_rows * model.n_vocab
