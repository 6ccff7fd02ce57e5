"""Qwen1.5-MoE and Qwen2-MoE: Qwen2's attention, routed experts and a gated shared one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from convert.architectures.mixture import Mixture, shared_expert
from convert.architectures.transformer import ATTENTION, PRE_NORMS, QKV


class Qwen2Moe(Mixture):
    """Softmax routing, with the chosen experts' weights as they are."""

    names = ("Qwen2MoeForCausalLM",)
    gguf_name = "qwen2moe"
    needs_output = True
    layer = PRE_NORMS | ATTENTION
    shared = shared_expert("mlp.shared_expert")
    gate = "mlp.shared_expert_gate"
    biases: ClassVar[Mapping[str, Collection[str]]] = {"qkv_bias": QKV}
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "qkv_bias": True,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "num_experts_per_tok": 4,
        "num_experts": 60,
    }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.expect_usual_heads()
        self.config.expect("norm_topk_prob", False)
        self.config.expect("decoder_sparse_step", 1)
        self.config.expect("mlp_only_layers", [])

    def window(self) -> int | None:
        """Return the sliding window, which published models disable."""
        size = self.config.get("sliding_window")
        return size if self.config.get("use_sliding_window", False) else None
