"""Granite 3 and 4: Llama with four multipliers, dense and with experts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from convert.architectures.architecture import Target, Value
from convert.architectures.mixture import Mixture
from convert.architectures.transformer import ATTENTION, GATED_MLP, PRE_NORMS, Transformer
from convert.errors import UnsupportedError


class Granite(Transformer):
    """Embeddings, attention, residuals and logits are scaled."""

    names: ClassVar[tuple[str, ...]] = ("GraniteForCausalLM",)
    gguf_name = "granite"
    rotates_pairs = True
    rope_kinds = ("linear", "llama3", "yarn", "longrope")
    biases: ClassVar[Mapping[str, Collection[str]]] = {"attention_bias": ATTENTION, "mlp_bias": GATED_MLP}
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "embedding_multiplier": 1.0,
        "logits_scaling": 1.0,
        "residual_multiplier": 1.0,
        "attention_multiplier": 1.0,
    }

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        multipliers: dict[str, Value] = {
            "attention.scale": self.config.number("attention_multiplier"),
            "embedding_scale": self.config.number("embedding_multiplier"),
            "residual_scale": self.config.number("residual_multiplier"),
            "logit_scale": self.config.number("logits_scaling"),
        }
        if not all(multipliers.values()):
            raise UnsupportedError(
                f"config.json: a multiplier is 0 ({multipliers}), which llama.cpp takes for none"
            )
        return super().metadata() | multipliers


class GraniteMoe(Mixture, Granite):
    """Experts in every layer, fused; perhaps a shared one, whose gate and up are one matrix."""

    names: ClassVar[tuple[str, ...]] = ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM")
    gguf_name = "granitemoe"
    layer = PRE_NORMS | ATTENTION
    renamed: ClassVar[Mapping[str, str]] = {
        r"\.block_sparse_moe\.input_linear\.weight": ".block_sparse_moe.experts.gate_up_proj",
        r"\.block_sparse_moe\.output_linear\.weight": ".block_sparse_moe.experts.down_proj",
        r"\.router\.layer\.weight": ".router.weight",
    }
    router = "block_sparse_moe.router"
    experts = "block_sparse_moe.experts."
    sizes = ("num_local_experts", "num_experts_per_tok", "intermediate_size")
    biases: ClassVar[Mapping[str, Collection[str]]] = {"attention_bias": ATTENTION}
    defaults: ClassVar[Mapping[str, Any]] = {
        **Granite.defaults,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 0,
    }

    @cached_property
    def shared_size(self) -> int:
        """Numbers in the middle of the shared expert; 0 where there is none."""
        return self.config.integer("shared_intermediate_size")

    def mixture(self, ours: str, theirs: str) -> Iterator[Target]:
        """Yield a layer's experts and router."""
        yield from super().mixture(ours, theirs)
        if self.shared_size:
            yield from self.fused_mlp(ours, f"{theirs}shared_mlp.", self.shared_size, "_shexp")

    def fused_mlp(self, ours: str, theirs: str, inner: int, ending: str) -> Iterator[Target]:
        """Yield an MLP whose gate is over its up."""
        width = self.config.integer("hidden_size")
        self.expect_shape(f"{theirs}input_linear.weight", (2 * inner, width))
        for part, rows in (("gate", np.arange(inner)), ("up", np.arange(inner, 2 * inner))):
            yield self.take(f"{ours}ffn_{part}{ending}.weight", f"{theirs}input_linear.weight", rows=rows)
        self.expect_shape(f"{theirs}output_linear.weight", (width, inner))
        yield self.take(f"{ours}ffn_down{ending}.weight", f"{theirs}output_linear.weight")
