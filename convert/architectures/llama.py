"""Llama 2 and 3.x; models with its architecture (SmolLM2, Mistral, Yi); SmolLM3."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from convert.architectures.transformer import ATTENTION, GATED_MLP, Transformer
from convert.errors import UnsupportedError


class Llama(Transformer):
    """Pre-norm transformer with rotary positions, grouped queries and a gated MLP."""

    names: ClassVar[tuple[str, ...]] = ("LlamaForCausalLM",)
    gguf_name = "llama"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
    }
    rope_kinds = ("linear", "llama3", "yarn", "longrope")
    rotates_pairs = True
    biases: ClassVar[Mapping[str, Collection[str]]] = {"attention_bias": ATTENTION, "mlp_bias": GATED_MLP}


class Mistral(Llama):
    """Llama with a sliding window, which llama.cpp's architecture does not have."""

    names: ClassVar[tuple[str, ...]] = ("MistralForCausalLM",)
    defaults: ClassVar[Mapping[str, Any]] = {
        **Llama.defaults,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    }

    def window(self) -> int | None:
        """Return the sliding window, None where config.json says null."""
        return self.config.integer("sliding_window") if "sliding_window" in self.config else None


class SmolLM3(Transformer):
    """SmolLM3: Llama without positions in every fourth layer."""

    names = ("SmolLM3ForCausalLM",)
    gguf_name = "smollm3"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "no_rope_layer_interval": 4,
    }
    usual_rope: ClassVar[Mapping[str, Any]] = {"rope_theta": 2e6}
    rotates_pairs = True
    is_tied = True

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express: layers without positions elsewhere."""
        super().check()
        self.config.get("no_rope_layer_interval")
        turns = self.config.get("no_rope_layers") or [
            (i + 1) % self.config.integer("no_rope_layer_interval") for i in range(self.n_layers)
        ]
        if [bool(turn) for turn in turns[: self.n_layers]] != [i % 4 != 3 for i in range(self.n_layers)]:
            raise UnsupportedError(
                "config.json: no_rope_layers is another pattern than every fourth layer, the only one of "
                "llama.cpp's smollm3"
            )

    def window(self) -> int | None:
        """Return the window of the layers without positions, if they have one."""
        size = self.config.get("sliding_window")
        return size if self.config.get("use_sliding_window", False) else None
