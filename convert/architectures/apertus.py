"""Apertus: an MLP without a gate, whose activation (xIELU) each layer has learned."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from convert.architectures.architecture import Value
from convert.architectures.transformer import ATTENTION, HEAD_NORMS, Transformer

XIELU = ("alpha_n", "alpha_p", "beta", "eps")
"""The numbers of the activation, in the checkpoint as in llama.cpp's keys."""


class Apertus(Transformer):
    """Queries and keys are normed; the rotation is Llama 3.1's.

    A layer's activation is four numbers in the checkpoint, and four settings in the file.
    """

    names = ("ApertusForCausalLM",)
    gguf_name = "apertus"
    needs_output = True
    layer = (
        {"attn_norm": "attention_layernorm", "ffn_norm": "feedforward_layernorm"}
        | ATTENTION
        | HEAD_NORMS
        | {"ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    )
    activation = ("hidden_act", ("xielu",))
    rope_kinds = ("linear", "llama3", "yarn", "longrope")
    usual_rope: ClassVar[Mapping[str, Any]] = {
        "rope_type": "llama3",
        "rope_theta": 12000000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    ignored = (*Transformer.ignored, "*.mlp.act_fn.*")
    biases: ClassVar[Mapping[str, Collection[str]]] = {"attention_bias": ATTENTION}
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 65536,
        "rms_norm_eps": 1e-5,
        "hidden_act": "xielu",
    }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("post_norm", False)
        self.config.expect("qk_norm", True)

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        return super().metadata() | {f"xielu.{name}": self.learned(name) for name in XIELU}

    def full_key(self, key: str) -> str:
        """Return a key as the file has it; those of the activation name no architecture."""
        return key if key.startswith("xielu.") else super().full_key(key)

    def learned(self, name: str) -> list[float]:
        """Return one of the activation's numbers for every layer: the tensors' shapes are () or (1,)."""
        return [
            float(self.tensor(f"{self.prefix}layers.{i}.mlp.act_fn.{name}").array().reshape(1)[0])
            for i in range(self.n_layers)
        ]
