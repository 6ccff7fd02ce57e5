"""Hunyuan, dense and with experts (A13B)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.mixture import Mixture, shared_expert
from convert.architectures.transformer import ATTENTION, GATED_MLP, PRE_NORMS, Transformer
from convert.source.config import Config, Rope
from convert.source.tensor import SourceTensor

HEAD_NORMS = {"attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"}


class HunYuan(Transformer):
    """Queries and keys are normed after the rotation, whose base may be stretched by ``alpha``."""

    names: ClassVar[tuple[str, ...]] = ("HunYuanDenseV1ForCausalLM",)
    gguf_name = "hunyuan-dense"
    layer = PRE_NORMS | ATTENTION | HEAD_NORMS | GATED_MLP
    rope_kinds = ("linear", "yarn", "llama3")
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
    }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("use_qk_norm", True)
        self.config.expect("use_cla", False)

    def read_rope(self) -> Rope:
        """Return the rotation; a kind "dynamic" with an ``alpha`` is a plain one of another base."""
        rope = super().read_rope()
        if rope.kind != "dynamic" or not rope.scaling.get("alpha"):
            return rope
        stretch = rope.number("alpha") ** (self.head_size / (self.head_size - 2))
        return replace(rope, theta=rope.theta * stretch, scaling={})


class HunYuanMoe(Mixture, HunYuan):
    """Routed experts and a shared one in every layer; published configs have a size for each layer."""

    names = ("HunYuanMoEV1ForCausalLM",)
    gguf_name = "hunyuan-moe"
    layer = PRE_NORMS | ATTENTION | HEAD_NORMS
    router = "mlp.gate.wg"
    shared = shared_expert("mlp.shared_mlp")
    sizes = ("num_experts", "moe_topk", "intermediate_size")
    defaults: ClassVar[Mapping[str, Any]] = {**HunYuan.defaults, "num_experts": 1, "moe_topk": 1}
    aliases: ClassVar[Mapping[str, str]] = {
        "num_experts_per_tok": "moe_topk",
        "num_local_experts": "num_experts",
    }

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        super().__init__(config, tensors)
        listed = {key: self.config.get(key) for key in self.sizes[:2]}
        alike = {key: sizes[0] for key, sizes in listed.items() if _are_alike(sizes)}
        self.config = self.config.replaced(**alike)

    @cached_property
    def shared_size(self) -> int:
        """Numbers in the middle of the shared expert."""
        return self.expert_size


def _are_alike(sizes: Any) -> bool:
    return isinstance(sizes, list) and len(sizes) > 0 and sizes.count(sizes[0]) == len(sizes)
