"""Qwen 2 and 2.5, Qwen 3: the dense models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from convert.architectures.transformer import (
    ATTENTION,
    GATED_MLP,
    HEAD_NORMS,
    PRE_NORMS,
    Transformer,
)


class Qwen2(Transformer):
    """Llama's layers, with a bias on queries, keys and values."""

    names = ("Qwen2ForCausalLM",)
    gguf_name = "qwen2"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "sliding_window": 4096,
        "max_window_layers": 28,
    }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.expect_usual_heads()

    def has_bias(self, name: str) -> bool:
        """Whether a part of a layer has a bias."""
        return name in ("attn_q", "attn_k", "attn_v")

    def window(self) -> int | None:
        """Return the sliding window of the upper layers, which published models disable."""
        size, first = self.config.get("sliding_window"), self.config.integer("max_window_layers")
        usual = ["full_attention" if i < first else "sliding_attention" for i in range(self.n_layers)]
        slides = "sliding_attention" in self.config.get("layer_types", usual)
        return size if slides and self.config.get("use_sliding_window", False) else None


class Qwen3(Qwen2):
    """Each head's queries and keys are normed; no biases."""

    names = ("Qwen3ForCausalLM",)
    gguf_name = "qwen3"
    layer = PRE_NORMS | ATTENTION | HEAD_NORMS | GATED_MLP
    defaults: ClassVar[Mapping[str, Any]] = {**Qwen2.defaults, "head_dim": 128}

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        Transformer.check(self)

    def has_bias(self, name: str) -> bool:
        """Whether a part of a layer has a bias."""
        return False
