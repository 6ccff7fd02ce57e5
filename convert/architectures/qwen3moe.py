"""Qwen3 with a mixture of experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from convert.architectures.mixture import Mixture


class Qwen3Moe(Mixture):
    """Qwen3's attention; softmax routing, with the chosen experts' weights normalised."""

    names = ("Qwen3MoeForCausalLM",)
    gguf_name = "qwen3moe"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "sliding_window": 4096,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "num_experts": 128,
        "norm_topk_prob": False,
    }
    aliases: ClassVar[Mapping[str, str]] = {"num_local_experts": "num_experts"}

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("norm_topk_prob", True, missing=False)
        self.config.expect("decoder_sparse_step", 1)
        self.config.expect("mlp_only_layers", [])

    def window(self) -> int | None:
        """Return the sliding window of all layers, which published models disable."""
        size = self.config.get("sliding_window")
        return size if self.config.get("use_sliding_window", False) else None
