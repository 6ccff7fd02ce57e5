"""ERNIE 4.5, dense and with experts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Value
from convert.architectures.mixture import Mixture, shared_expert
from convert.architectures.transformer import ATTENTION, PRE_NORMS, Transformer


class Ernie45(Transformer):
    """Llama's layers. Queries and keys are in neighbouring pairs already, as llama.cpp turns them."""

    names: ClassVar[tuple[str, ...]] = ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM")
    gguf_name = "ernie4_5"
    is_tied = True
    usual_rope: ClassVar[Mapping[str, Any]] = {"rope_theta": 500000.0}
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 18,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
    }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("use_bias", False)


class Ernie45Moe(Mixture, Ernie45):
    """Experts in all layers but the first ones, chosen by softmax scores plus a bias; shared experts."""

    names = ("Ernie4_5_MoeForCausalLM",)
    gguf_name = "ernie4_5-moe"
    layer = PRE_NORMS | ATTENTION
    renamed: ClassVar[Mapping[str, str]] = {r"\.mlp\.moe_statics\.": ".mlp.gate.moe_statics."}
    correction = "mlp.gate.moe_statics.e_score_correction_bias"
    shared = shared_expert("mlp.shared_experts")
    sizes = ("moe_num_experts", "moe_k", "moe_intermediate_size")
    ignored = (*Transformer.ignored, "model.mtp_*")  # drafts of further tokens
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "num_hidden_layers": 28,
        "num_attention_heads": 20,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "moe_intermediate_size": 1536,
        "moe_k": 6,
        "moe_num_experts": 64,
        "moe_num_shared_experts": 2,
        "moe_layer_start_index": 1,
    }
    aliases: ClassVar[Mapping[str, str]] = {
        "num_experts": "moe_num_experts",
        "num_experts_per_tok": "moe_k",
    }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("moe_layer_interval", 1)
        self.config.expect("moe_layer_end_index", -1, *range(self.n_layers - 1, 2**10))

    @cached_property
    def n_dense(self) -> int:
        """How many layers have an MLP before those with experts."""
        return self.config.integer("moe_layer_start_index")

    @cached_property
    def shared_size(self) -> int:
        """Numbers in the middle of the shared experts, which are one matrix."""
        return self.expert_size * self.config.integer("moe_num_shared_experts")

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        return super().metadata() | {
            "interleave_moe_layer_step": 1,
            "leading_dense_block_count": self.n_dense,
        }
