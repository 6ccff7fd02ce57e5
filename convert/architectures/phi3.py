"""Phi-3, Phi-3.5 and Phi-4 (mini and 14B)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.transformer import PRE_NORMS, Transformer
from convert.source.config import Rope


class Phi3(Transformer):
    """Llama's layers with fused matrices; some models rotate a part of each head, some have long-rope."""

    names = ("Phi3ForCausalLM",)
    gguf_name = "phi3"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    }
    layer = PRE_NORMS | {
        "attn_qkv": "self_attn.qkv_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_up": "mlp.gate_up_proj",  # llama.cpp gates by the first half, as this has it
        "ffn_down": "mlp.down_proj",
    }
    rope_kinds = ("longrope",)
    partial_rotation = True

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.expect_usual_heads()

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each part of a layer."""
        inner, width = super().shapes["ffn_up"]
        return {**super().shapes, "ffn_up": (2 * inner, width)}

    @property
    def fused(self) -> Mapping[str, tuple[str, int]]:
        """The usual projections, which are rows of the fused matrices."""
        n_q, n_kv = self.n_heads * self.head_size, self.n_heads_kv * self.head_size
        return {
            "self_attn.q_proj": ("self_attn.qkv_proj", 0),
            "self_attn.k_proj": ("self_attn.qkv_proj", n_q),
            "self_attn.v_proj": ("self_attn.qkv_proj", n_q + n_kv),
            "mlp.gate_proj": ("mlp.gate_up_proj", 0),
            "mlp.up_proj": ("mlp.gate_up_proj", self.config.integer("intermediate_size")),
        }

    def read_rope(self) -> Rope:
        """Return the rotary settings; older files call long-rope ``su`` or ``yarn``."""
        rope = self.config.rope()
        if rope.kind not in ("su", "yarn"):
            return rope
        return replace(rope, scaling={**rope.scaling, "rope_type": "longrope"})

    def window(self) -> int | None:
        """Return the sliding window, which llama.cpp's architecture reads but does not apply."""
        return self.config.integer("sliding_window") if "sliding_window" in self.config else None
