"""GLM-4.5, 4.6 and 4.7: sigmoid-routed experts and a shared one, after some dense layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Value
from convert.architectures.experts import SIGMOID, expert_groups
from convert.architectures.mixture import Mixture, shared_expert
from convert.architectures.transformer import ATTENTION, HEAD_NORMS, QKV
from convert.errors import UnsupportedError
from convert.source.config import Config
from convert.source.tensor import SourceTensor

NORMS = {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"}


class Glm4Moe(Mixture):
    """Half of each head turns. The large model norms queries and keys.

    Layers that predict further tokens follow the last one. They are left out, as in DeepSeek-V3.
    """

    names = ("Glm4MoeForCausalLM",)
    gguf_name = "glm4moe"
    partial_rotation = True
    usual_rope: ClassVar[Mapping[str, Any]] = {"partial_rotary_factor": 0.5}
    shared = shared_expert("mlp.shared_experts")
    correction = "mlp.gate.e_score_correction_bias"
    sizes = ("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size")
    biases: ClassVar[Mapping[str, Collection[str]]] = {"attention_bias": QKV}
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 10944,
        "num_hidden_layers": 46,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "n_routed_experts": 128,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "norm_topk_prob": True,
        "num_nextn_predict_layers": 1,
    }
    aliases: ClassVar[Mapping[str, str]] = {
        "num_local_experts": "n_routed_experts",
        "num_mtp_layers": "num_nextn_predict_layers",
    }

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        super().__init__(config, tensors)
        extra = range(self.n_layers, self.n_layers + self.config.integer("num_nextn_predict_layers"))
        self.ignored = (*type(self).ignored, *(f"{self.prefix}layers.{i}.*" for i in extra))

    @property
    def layer(self) -> Mapping[str, str]:  # type: ignore[override]
        """A layer's tensors without those of its MLP or experts."""
        return NORMS | ATTENTION | (HEAD_NORMS if self.config.get("use_qk_norm", False) else {})

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("use_qk_norm", False, True)
        for key in ("n_shared_experts", "routed_scaling_factor"):
            if not self.config.number(key):
                raise UnsupportedError(f"config.json: llama.cpp's glm4moe cannot compute {key} 0")

    @cached_property
    def n_dense(self) -> int:
        """How many layers have an MLP before those with experts."""
        return min(self.n_layers, self.config.integer("first_k_dense_replace"))

    @cached_property
    def shared_size(self) -> int:
        """Numbers in the middle of the shared experts, which are one matrix."""
        return self.expert_size * self.config.integer("n_shared_experts")

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        return super().metadata() | {
            "leading_dense_block_count": self.n_dense,
            "expert_shared_count": self.config.integer("n_shared_experts"),
            "expert_weights_scale": self.config.number("routed_scaling_factor"),
            "expert_weights_norm": bool(self.config.get("norm_topk_prob")),
            "expert_gating_func": SIGMOID,
            **expert_groups(self.config, self.n_experts),
        }
