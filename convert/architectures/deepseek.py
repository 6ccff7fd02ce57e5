"""DeepSeek-V3 and V3.1, and Kimi-K2, which has the same architecture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from convert.architectures.architecture import Rows, Target, Value, rotary_rows
from convert.architectures.decoder import DecoderOnly
from convert.architectures.experts import SIGMOID, expert_groups, expert_stacks
from convert.architectures.rotary import latent_rope_metadata
from convert.errors import UnsupportedError
from convert.source.config import Config, Rope
from convert.source.tensor import Array, SourceTensor

WEIGHTS = {
    "attn_norm": "input_layernorm",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
}
MLP = {"ffn_gate": "gate_proj", "ffn_up": "up_proj", "ffn_down": "down_proj"}


class DeepSeekV3(DecoderOnly):
    """Latent attention; experts chosen by sigmoid scores plus a bias, from the best groups; shared experts.

    llama.cpp computes latent attention with queries moved into the latent space, hence one key head, and
    ``kv_b_proj`` in two: its key part, transposed for each head, and its value part.

    Layers that predict further tokens follow the last one (``num_nextn_predict_layers``). They are no part
    of a token's probability and are left out; a checkpoint may announce them and not have them.
    """

    names: ClassVar[tuple[str, ...]] = ("DeepseekV3ForCausalLM",)
    gguf_name = "deepseek2"
    scoring: ClassVar[tuple[str, int]] = ("sigmoid", SIGMOID)
    """How the router's scores are made of its logits: the setting, and llama.cpp's number."""
    is_corrected: ClassVar[bool] = True
    """Whether a bias is added to the scores for the choice."""
    ignored: tuple[str, ...] = ("*.rotary_emb.inv_freq",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "n_shared_experts": 1,
        "n_routed_experts": 256,
        "routed_scaling_factor": 2.5,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "n_group": 8,
        "topk_group": 4,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 3,
        "norm_topk_prob": True,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_interleave": True,
        "num_nextn_predict_layers": 1,
    }
    aliases: ClassVar[Mapping[str, str]] = {
        "num_local_experts": "n_routed_experts",
        "num_mtp_layers": "num_nextn_predict_layers",
    }
    without_lora: ClassVar[tuple[str, ...]] = (
        "output.weight",
        "blk.*.attn_q.weight",
        "blk.*.attn_q_a.weight",
        "blk.*.attn_q_b.weight",
        "blk.*.attn_kv_a_mqa.weight",
        "blk.*.attn_k_b.weight",
        "blk.*.attn_v_b.weight",
    )

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        super().__init__(config, tensors)
        config = self.config
        n_extra = config.integer("num_nextn_predict_layers", 0)
        extra = range(self.n_layers, self.n_layers + n_extra)
        self.ignored = (*type(self).ignored, *(f"{self.prefix}layers.{i}.*" for i in extra))
        self.n_heads = config.integer("num_attention_heads")
        self.nope, self.rope = config.integer("qk_nope_head_dim"), config.integer("qk_rope_head_dim")
        self.value, self.rank = config.integer("v_head_dim"), config.integer("kv_lora_rank")
        kinds = config.get("mlp_layer_types", ["dense"] * config.integer("first_k_dense_replace"))
        self.n_dense = kinds.index("sparse") if "sparse" in kinds else len(kinds)
        if "dense" in kinds[self.n_dense :]:
            raise UnsupportedError("config.json: mlp_layer_types has a dense layer after one of experts")
        self.n_experts = config.integer("n_routed_experts")

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        config, rope = self.config, self.read_rope()
        config.expect("hidden_act", "silu")
        config.expect("scoring_func", self.scoring[0])
        config.expect("topk_method", *(["noaux_tc"] if self.is_corrected else []))
        config.expect("moe_layer_freq", 1)
        config.expect("num_key_value_heads", self.n_heads)
        if rope.kind not in ("default", "yarn"):
            raise UnsupportedError(f"config.json: the rotary scaling is {rope.kind!r}; known here is yarn")
        self._refuse_lite()
        length = config.integer("max_position_embeddings")
        return {
            "vocab_size": self.tensor(f"{self.prefix}embed_tokens.weight").shape[0],
            "context_length": length,
            "embedding_length": config.integer("hidden_size"),
            "block_count": self.n_layers,
            "feed_forward_length": config.integer("intermediate_size"),
            "leading_dense_block_count": self.n_dense,
            "attention.head_count": self.n_heads,
            "attention.head_count_kv": 1,
            "attention.key_length": self.rank + self.rope,
            "attention.value_length": self.rank,
            "attention.key_length_mla": self.nope + self.rope,
            "attention.value_length_mla": self.value,
            "attention.q_lora_rank": config.integer("q_lora_rank", 0),
            "attention.kv_lora_rank": self.rank,
            "attention.layer_norm_rms_epsilon": config.number("rms_norm_eps"),
            **latent_rope_metadata(rope, self.rope, length),
            **self._routing(),
        }

    def read_rope(self) -> Rope:
        """Return the rotary settings of config.json."""
        return self.config.rope()

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from self.embeddings()
        yield self.take("output_norm.weight", f"{self.prefix}norm.weight")
        for i in range(self.n_layers):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            for name, source in WEIGHTS.items():
                yield self.take(f"{ours}{name}.weight", f"{theirs}{source}.weight")
            yield from self._attention(ours, f"{theirs}self_attn.")
            mlp = self._dense if i < self.n_dense else self._mixture
            yield from mlp(ours, f"{theirs}mlp.")

    def _attention(self, ours: str, theirs: str) -> Iterator[Target]:
        q_rows = self._rotated(self.n_heads, self.nope)
        if "q_lora_rank" in self.config:
            yield self.take(f"{ours}attn_q_a.weight", f"{theirs}q_a_proj.weight")
            yield self.take(f"{ours}attn_q_a_norm.weight", f"{theirs}q_a_layernorm.weight")
            yield self.take(f"{ours}attn_q_b.weight", f"{theirs}q_b_proj.weight", rows=q_rows)
        else:
            yield self.take(f"{ours}attn_q.weight", f"{theirs}q_proj.weight", rows=q_rows)
        kv_rows = self._rotated(1, self.rank)
        yield self.take(f"{ours}attn_kv_a_mqa.weight", f"{theirs}kv_a_proj_with_mqa.weight", rows=kv_rows)
        yield from self._key_and_value(ours, f"{theirs}kv_b_proj.weight")

    def _rotated(self, n_heads: int, before: int) -> Rows | None:
        """Return llama.cpp's order of rows where the checkpoint rotates halves of a head, not pairs.

        Args:
            before: rows of a head that are not rotated and come first.
        """
        if self.config.get("rope_interleave"):
            return None
        head = np.concatenate([np.arange(before), before + rotary_rows(1, self.rope)])
        rows: Rows = (np.arange(n_heads)[:, None] * len(head) + head).reshape(-1)
        return rows

    def _key_and_value(self, ours: str, source: str) -> Iterator[Target]:
        shape = (self.n_heads, self.nope + self.value, self.rank)
        self.expect_shape(source, (shape[0] * shape[1], shape[2]))
        tensor = self.tensor(source)

        def keys() -> Array:
            return tensor.array().reshape(shape)[:, : self.nope].swapaxes(1, 2)

        def values() -> Array:
            return tensor.array().reshape(shape)[:, self.nope :]

        k_shape, v_shape = (shape[0], self.rank, self.nope), (shape[0], self.value, self.rank)
        yield self.compute(f"{ours}attn_k_b.weight", k_shape, tensor.sources, keys)
        yield self.compute(f"{ours}attn_v_b.weight", v_shape, tensor.sources, values)

    def _dense(self, ours: str, theirs: str) -> Iterator[Target]:
        for name, source in MLP.items():
            yield self.take(f"{ours}{name}.weight", f"{theirs}{source}.weight")

    def _mixture(self, ours: str, theirs: str) -> Iterator[Target]:
        yield self.take(f"{ours}ffn_gate_inp.weight", f"{theirs}gate.weight", is_matrix=False)
        if self.is_corrected:
            yield self.take(f"{ours}exp_probs_b.bias", f"{theirs}gate.e_score_correction_bias")
        yield from expert_stacks(self, ours, f"{theirs}experts.", self.n_experts)
        for name, source in MLP.items():
            yield self.take(f"{ours}{name}_shexp.weight", f"{theirs}shared_experts.{source}.weight")

    def _routing(self) -> dict[str, Value]:
        config = self.config
        values: dict[str, Value] = {
            "expert_count": self.n_experts,
            "expert_used_count": config.integer("num_experts_per_tok"),
            "expert_feed_forward_length": config.integer("moe_intermediate_size"),
            "expert_shared_count": config.integer("n_shared_experts"),
            "expert_weights_scale": config.number("routed_scaling_factor"),
            "expert_weights_norm": bool(config.get("norm_topk_prob")),
            "expert_gating_func": self.scoring[1],
        }
        for key in ("expert_shared_count", "expert_weights_scale"):
            if not values[key]:
                raise UnsupportedError(
                    f"config.json: llama.cpp cannot compute DeepSeek-V3 with {key} {values[key]!r} "
                    "(n_shared_experts, routed_scaling_factor)"
                )
        return values | expert_groups(config, self.n_experts)

    def _refuse_lite(self) -> None:
        """Refuse sizes that llama.cpp takes for a Lite model, which it loads without q_lora_rank."""
        n_vocab = self.tensor(f"{self.prefix}embed_tokens.weight").shape[0]
        is_lite = self.n_layers in (26, 27) or (self.n_layers == 48 and n_vocab == 128256)
        if is_lite and "q_lora_rank" in self.config:
            raise UnsupportedError(
                f"config.json: with {self.n_layers} layers llama.cpp takes this for DeepSeek-V2-Lite and "
                f"ignores q_lora_rank ({self.config.get('q_lora_rank')})"
            )


class KimiK25(DeepSeekV3):
    """The text part of Kimi-K2.5 and 2.6; Kimi-K2 and K2-Thinking call themselves DeepSeek-V3."""

    names = ("KimiK25ForConditionalGeneration", "Kimi_K25ForConditionalGeneration")

    prefixes = ("language_model.model.", "model.language_model.")  # as published; as transformers 5 has it
    heads = ("language_model.lm_head.weight", "lm_head.weight")
    ignored = (*DeepSeekV3.ignored, "*vision_tower.*", "*mm_projector.*")
