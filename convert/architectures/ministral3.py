"""Ministral 3 and Mistral Small 3: Llama's layers, perhaps with queries that grow with their position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from convert.architectures.architecture import Value
from convert.architectures.llama import Mistral
from convert.errors import UnsupportedError


class Ministral3(Mistral):
    """Far queries are scaled by 1 + beta ln(1 + floor(position / YaRN's original length))."""

    names = ("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration")
    gguf_name = "mistral3"
    prefixes = ("model.", "model.language_model.", "language_model.model.")
    heads: ClassVar[tuple[str, ...]] = ("lm_head.weight", "language_model.lm_head.weight")
    ignored = (*Mistral.ignored, "*vision_tower.*", "*multi_modal_projector.*")
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    usual_rope: ClassVar[Mapping[str, Any]] = {
        "rope_type": "yarn",
        "rope_theta": 1000000.0,
        "factor": 16.0,
        "original_max_position_embeddings": 16384,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale_all_dim": 1.0,
        "mscale": 1.0,
        "llama_4_scaling_beta": 0.1,
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 34,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    }

    def rope_values(self, length: int) -> dict[str, Value]:
        """Return the keys of the rotation, and how queries grow."""
        values = super().rope_values(length)
        said = self.config.get("rope_parameters") or self.config.get("rope_scaling") or self.usual_rope
        if not said.get("llama_4_scaling_beta"):
            return values
        if self.rope.kind != "yarn":
            raise UnsupportedError(
                f"config.json: llama_4_scaling_beta with a rotation of the kind {self.rope.kind!r}; "
                "llama.cpp's mistral3 takes its length from yarn"
            )
        return values | {"attention.temperature_scale": self.rope.number("llama_4_scaling_beta")}
