"""Llama 4 (Scout, Maverick): chunked attention, experts whose inputs the router scales, a shared one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Value
from convert.architectures.mixture import Mixture, shared_expert
from convert.architectures.transformer import ATTENTION, GATED_MLP, PRE_NORMS
from convert.errors import UnsupportedError

CHUNK = 8192
"""Tokens of a chunk, and of a step in the scale of far queries; llama.cpp has both as constants."""

MAVERICK = 128
"""The number of experts by which llama.cpp knows the model that norms no queries and keys."""


class Llama4(Mixture):
    """Every fourth layer sees all tokens, and none turned. Checkpoints have neighbouring pairs already."""

    names = ("Llama4ForConditionalGeneration", "Llama4ForCausalLM")
    gguf_name = "llama4"
    prefixes = ("model.", "model.language_model.", "language_model.model.")
    heads: ClassVar[tuple[str, ...]] = ("lm_head.weight", "language_model.lm_head.weight")
    ignored = (*Mixture.ignored, "*vision_model.*", "*multi_modal_projector.*")
    rope_kinds = ("llama3",)
    usual_rope: ClassVar[Mapping[str, Any]] = {"rope_theta": 500000.0}
    layer = PRE_NORMS | ATTENTION
    mlp: ClassVar[Mapping[str, str]] = {
        name: source.replace("mlp", "feed_forward") for name, source in GATED_MLP.items()
    }
    router = "feed_forward.router"
    experts = "feed_forward.experts."
    shared = shared_expert("feed_forward.shared_expert")
    sizes = ("num_local_experts", "num_experts_per_tok", "intermediate_size")
    inputs_first = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "num_experts_per_tok": 1,
        "num_local_experts": 16,
        "interleave_moe_layer_step": 1,
        "use_qk_norm": True,
        "attn_temperature_tuning": True,
        "attention_chunk_size": CHUNK,
        "floor_scale": CHUNK,
        "attn_scale": 0.1,
    }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("use_qk_norm", self.n_experts != MAVERICK)
        self.config.expect("attention_chunk_size", CHUNK, missing=False)
        self.config.expect("floor_scale", CHUNK)
        self.config.expect("attn_scale", 0.1)
        if not self.config.get("attn_temperature_tuning"):
            raise UnsupportedError("config.json: llama.cpp's llama4 always scales far queries; "
                                   "attn_temperature_tuning is off")  # fmt: skip
        usual = [int(i % 4 != 3) for i in range(self.n_layers)]
        if (self.config.get("no_rope_layers") or usual) != usual:
            raise UnsupportedError(
                "config.json: no_rope_layers is another pattern than every fourth layer, the only one of "
                "llama.cpp's llama4"
            )
        step = self.config.integer("interleave_moe_layer_step")
        usual = list(range(step - 1, self.n_layers, step))
        if (self.config.get("moe_layers") or usual) != usual:
            raise UnsupportedError(f"config.json: moe_layers are others than every {step}. layer")

    @cached_property
    def shared_size(self) -> int:
        """Numbers in the middle of the shared expert."""
        return self.expert_size

    def has_experts(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return (layer + 1) % self.config.integer("interleave_moe_layer_step") == 0

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each part of a layer."""
        width, inner = self.config.integer("hidden_size"), self.config.integer("intermediate_size_mlp")
        mlp = {"ffn_gate": (inner, width), "ffn_up": (inner, width), "ffn_down": (width, inner)}
        return {**super().shapes, **mlp}

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        return super().metadata() | {
            "feed_forward_length": self.config.integer("intermediate_size_mlp"),
            "interleave_moe_layer_step": self.config.integer("interleave_moe_layer_step"),
        }
