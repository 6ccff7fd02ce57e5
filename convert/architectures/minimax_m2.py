"""MiniMax-M2 and M2.1: sigmoid-routed experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Value
from convert.architectures.experts import SIGMOID
from convert.architectures.mixture import NUMBERED, Mixture
from convert.source.config import Rope


class MiniMaxM2(Mixture):
    """Queries and keys are normed over all heads at once; a part of each head turns (``rotary_dim``)."""

    names = ("MiniMaxM2ForCausalLM",)
    gguf_name = "minimax-m2"
    needs_output = True
    partial_rotation = True
    renamed: ClassVar[Mapping[str, str]] = {r"\.block_sparse_moe\.": ".mlp.", **NUMBERED}
    correction = "mlp.e_score_correction_bias"
    sizes = ("num_local_experts", "num_experts_per_tok", "intermediate_size")
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 3072,
        "intermediate_size": 1536,
        "num_hidden_layers": 62,
        "num_attention_heads": 48,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 196608,
        "rms_norm_eps": 1e-6,
        "num_experts_per_tok": 8,
        "num_local_experts": 256,
    }
    aliases: ClassVar[Mapping[str, str]] = {"num_experts": "num_local_experts"}

    def read_rope(self) -> Rope:
        """Return the rotation; published configs give its share of a head in numbers."""
        share = self.config.integer("rotary_dim", self.head_size) / self.head_size
        return self.config.rope(default_theta=5e6, default_partial=share)

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("scoring_func", "sigmoid")
        self.config.expect("use_qk_norm", True)
        self.config.expect("qk_norm_type", "per_layer")
        self.config.expect("shared_intermediate_size", 0)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each part of a layer."""
        usual = super().shapes
        return {**usual, "attn_q_norm": usual["attn_q"][:1], "attn_k_norm": usual["attn_k"][:1]}

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        return super().metadata() | {"expert_gating_func": SIGMOID}
