"""Llama 2 and 3.x, and what is Llama in the file: SmolLM2, Mistral, Yi."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from convert.architectures.architecture import Architecture, Target, Value, rotary_rows
from convert.config import Rope
from convert.errors import UnsupportedError
from convert.tensor import Array

MATRICES = {
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


class Llama(Architecture):
    """Pre-norm transformer with rotary positions, grouped queries and a gated MLP."""

    names = ("LlamaForCausalLM", "MistralForCausalLM")
    gguf_name = "llama"
    ignored = ("*.rotary_emb.inv_freq",)

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        config, rope = self.config, self.config.rope()
        config.expect("hidden_act", "silu")
        self.n_heads = config.integer("num_attention_heads")
        self.n_heads_kv = config.integer("num_key_value_heads", self.n_heads)
        self.head_size = config.integer("head_dim", config.integer("hidden_size") // self.n_heads)
        config.expect("attention_bias", False)
        config.expect("mlp_bias", False)
        values: dict[str, Value] = {
            "context_length": config.integer("max_position_embeddings"),
            "embedding_length": config.integer("hidden_size"),
            "block_count": self.n_layers,
            "feed_forward_length": config.integer("intermediate_size"),
            "attention.head_count": self.n_heads,
            "attention.head_count_kv": self.n_heads_kv,
            "attention.key_length": self.head_size,
            "attention.value_length": self.head_size,
            "attention.layer_norm_rms_epsilon": config.number("rms_norm_eps"),
            "rope.freq_base": rope.theta,
            "rope.dimension_count": self.head_size,
        }
        return values

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield self.take("token_embd.weight", "model.embed_tokens.weight")
        yield self.take("output_norm.weight", "model.norm.weight")
        if not self.config.get("tie_word_embeddings", False):
            yield self.take("output.weight", "lm_head.weight")
        rope = self.config.rope()
        if rope.kind == "llama3":
            yield self.compute(
                "rope_freqs.weight",
                (self.head_size // 2,),
                (),
                lambda: llama3_factors(rope, self.head_size),
                is_matrix=False,
            )
        elif rope.kind != "default":
            raise UnsupportedError(f"config.json: rope_type is {rope.kind!r}")
        q_rows = rotary_rows(self.n_heads, self.head_size)
        k_rows = rotary_rows(self.n_heads_kv, self.head_size)
        for i in range(self.n_layers):
            ours, theirs = f"blk.{i}.", f"model.layers.{i}."
            yield self.take(f"{ours}attn_q.weight", f"{theirs}self_attn.q_proj.weight", rows=q_rows)
            yield self.take(f"{ours}attn_k.weight", f"{theirs}self_attn.k_proj.weight", rows=k_rows)
            yield self.take(f"{ours}attn_v.weight", f"{theirs}self_attn.v_proj.weight")
            for name, source in (MATRICES | NORMS).items():
                yield self.take(f"{ours}{name}.weight", f"{theirs}{source}.weight")


def llama3_factors(rope: Rope, head_size: int) -> Array:
    """Return what llama.cpp divides each rotary frequency by.

    Llama 3.1's scaling: long waves are slowed by ``factor``, short ones left, between them a ramp
    (transformers, ``modeling_rope_utils._compute_llama3_parameters``).

    Returns:
        float32, shape ``(head_size / 2,)``.
    """
    factor, low, high = (float(rope.scaling[k]) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    old_length = float(rope.scaling["original_max_position_embeddings"])
    wave_length = 2 * np.pi * rope.theta ** (np.arange(0, head_size, 2) / head_size)
    ramp = np.clip((old_length / wave_length - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - ramp) / factor + ramp), np.float32)
