"""Seed-OSS: Llama's layers, with a bias on queries, keys and values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from convert.architectures.transformer import ATTENTION, GATED_MLP, QKV, Transformer


class SeedOss(Transformer):
    """The heads together may be wider than the hidden size."""

    names = ("SeedOssForCausalLM",)
    gguf_name = "seed_oss"
    layer = (
        {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"}
        | ATTENTION
        | GATED_MLP
    )
    biases: ClassVar[Mapping[str, Collection[str]]] = {"attention_bias": QKV}
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 27648,
        "num_hidden_layers": 64,
        "num_attention_heads": 80,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 524288,
        "rms_norm_eps": 1e-6,
        "attention_bias": True,
    }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("attention_out_bias", False)
