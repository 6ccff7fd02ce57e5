"""DeepSeek-V4: residual streams that mix, compressed caches, and experts that a token's id may choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import gguf
import numpy as np

from convert.architectures.architecture import Target, Value
from convert.architectures.decoder import DecoderOnly
from convert.architectures.experts import expert_stacks
from convert.architectures.hyper_connections import (
    RENAMED,
    layer_streams,
    stream_metadata,
    stream_targets,
)
from convert.architectures.rotary import rope_metadata
from convert.errors import CheckpointError, UnsupportedError
from convert.source.config import Rope
from convert.source.tensor import Array

RATIOS = {
    "sliding_attention": 0,
    "compressed_sparse_attention": 4,
    "heavily_compressed_attention": 128,
}
"""How many tokens of a layer are one in its compressed cache, by the layer's kind."""

SQRT_SOFTPLUS = 4
"""llama.cpp's number of the router (LLAMA_EXPERT_GATING_FUNC_TYPE_SQRT_SOFTPLUS)."""

LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_norm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv": "self_attn.kv_proj",
    "attn_kv_a_norm": "self_attn.kv_norm",
    "attn_output_a": "self_attn.o_a_proj",
    "attn_output_b": "self_attn.o_b_proj",
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj",
    "ffn_down_shexp": "mlp.shared_experts.down_proj",
}
COMPRESSOR = {"kv": "kv_proj", "gate": "gate_proj", "norm": "kv_norm"}
INDEXER = {"attn_q_b": "q_b_proj", "proj": "scorer.weights_proj"}


class DeepSeekV4(DecoderOnly):
    """llama.cpp compresses 4 or 128 tokens into one; a layer with neither sees a window alone."""

    names = ("DeepseekV4ForCausalLM",)
    gguf_name = "deepseek4"
    prefixes = ("model.", "")
    ignored = ("mtp.*", "*.mtp.*")
    without_lora = (
        "output.weight",
        "blk.*.attn_output_a.weight",
        "blk.*.hc_*.weight",
        "blk.*_ape.weight",
        "output_hc_*.weight",
    )
    renamed: ClassVar[Mapping[str, str]] = {
        r"\.attn\.": ".self_attn.",
        r"\.ffn\.": ".mlp.",
        r"\.indexer\.compressor\.": ".compressor.indexer.",
        r"\.self_attn\.indexer\.": ".self_attn.compressor.indexer.",
        r"\.indexer\.weights_proj\.": ".indexer.scorer.weights_proj.",
        r"(self_attn|compressor|indexer)\.norm\.": r"\1.kv_norm.",
        r"\.ape$": ".position_bias",
        r"\.wq_([ab])\.": r".q_\1_proj.",
        r"\.wo_([ab])\.": r".o_\1_proj.",
        r"\.wkv\.": ".kv_proj.",
        r"\.wgate\.": ".gate_proj.",
        r"\.q_norm\.": ".q_a_norm.",
        r"\.attn_sink$": ".sinks",
        r"\.attn_norm\.": ".input_layernorm.",
        r"\.ffn_norm\.": ".post_attention_layernorm.",
        **RENAMED,
        r"(^|\.)hc_head_(fn|base|scale)$": r"\1hc_head.hc_\2",
        r"\.gate\.bias$": ".gate.e_score_correction_bias",
        r"(experts(?:\.\d+)?)\.w1\.": r"\1.gate_proj.",
        r"(experts(?:\.\d+)?)\.w2\.": r"\1.down_proj.",
        r"(experts(?:\.\d+)?)\.w3\.": r"\1.up_proj.",
        r"^embed\.": "embed_tokens.",
        r"^head\.": "lm_head.",
    }
    aliases: ClassVar[Mapping[str, str]] = {
        "num_local_experts": "n_routed_experts",
        "intermediate_size": "moe_intermediate_size",
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 43,
        "num_attention_heads": 64,
        "head_dim": 512,
        "q_lora_rank": 1024,
        "num_experts_per_tok": 6,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "routed_scaling_factor": 1.5,
        "max_position_embeddings": 1048576,
        "rope_theta": 10000.0,
        "compress_rope_theta": 160000.0,
        "hc_mult": 4,
        "hc_sinkhorn_iters": 20,
        "hc_eps": 1e-6,
        "swiglu_limit": 10.0,
        "sliding_window": 128,
        "o_groups": 8,
        "o_lora_rank": 1024,
        "index_n_heads": 64,
        "index_head_dim": 128,
        "index_topk": 512,
        "rms_norm_eps": 1e-6,
    }

    # -- settings ---------------------------------------------------------------------------------

    @cached_property
    def ratios(self) -> list[int]:
        """For each layer how many tokens are one in its compressed cache; 0 where it has none."""
        n = self.n_layers
        usual = [4 if i > 1 and i % 2 else 128 for i in range(n)]
        if (kinds := self.config.get("layer_types")) is not None:
            ratios = [RATIOS.get(kind, -1) for kind in kinds]
        else:
            ratios = self.config.get("compress_ratios", usual)[:n]
        if len(ratios) != n or set(ratios) - set(RATIOS.values()):
            raise CheckpointError(
                f"config.json: layer_types must say {', '.join(RATIOS)} for each of {n} layers, or "
                f"compress_ratios 0, 4 or 128"
            )
        return ratios

    @cached_property
    def n_hashed(self) -> int:
        """How many layers there are, before all others, whose experts a token's id chooses."""
        n = self.config.integer("num_hash_layers", 3)
        usual = ["hash_moe"] * min(n, self.n_layers) + ["moe"] * (self.n_layers - n)
        kinds = self.config.get("mlp_layer_types", usual)
        n_hashed: int = kinds.count("hash_moe")
        if kinds != ["hash_moe"] * n_hashed + ["moe"] * (self.n_layers - n_hashed):
            raise UnsupportedError(
                "config.json: mlp_layer_types must say hash_moe for the first layers and moe for the rest; "
                "llama.cpp's deepseek4 has no other order"
            )
        return n_hashed

    @cached_property
    def n_rotated(self) -> int:
        """Numbers of a head that turn, its last ones."""
        head = self.config.integer("head_dim")
        share = self.config.integer("qk_rope_head_dim", head // 8) / head
        return int(head * self.config.number("partial_rotary_factor", share))

    def ropes(self) -> tuple[Rope, Rope]:
        """Return the rotation of layers with a window alone, and that of the others."""
        said, config = self.config.get("rope_parameters", {}), self.config
        if "main" in said and "compress" in said:
            own = config.replaced(rope_scaling=None)
            return own.rope("main"), own.rope("compress")
        main, scaled = Rope(config.number("rope_theta")), config.rope()
        scaling = {"attention_factor": 1.0, **scaled.scaling} if scaled.scaling else {}
        return main, Rope(config.number("compress_rope_theta"), scaled.partial, scaling)

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        config = self.config
        config.expect("hidden_act", "silu")
        config.expect("scoring_func", "sqrtsoftplus")
        config.expect("norm_topk_prob", True)
        config.expect("num_key_value_heads", 1)
        config.expect("attention_bias", False)
        config.expect("mlp_bias", False)
        rates = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
        config.expect("compress_rates", rates)
        config.expect("compress_rate_csa", 4)
        config.expect("compress_rate_hca", 128)
        main, scaled = self.ropes()
        if main.kind != "default" or scaled.kind not in ("default", "yarn"):
            raise UnsupportedError(
                f"config.json: the rotary scalings are {main.kind!r} and {scaled.kind!r}; llama.cpp's "
                "deepseek4 turns windows unscaled, and the rest unscaled or by yarn"
            )
        if scaled.kind == "yarn" and scaled.scaling.get("attention_factor") != 1:
            raise UnsupportedError(
                f"config.json: attention_factor of yarn is {scaled.scaling.get('attention_factor')!r}; "
                "llama.cpp's deepseek4 computes with 1"
            )
        for key in ("swiglu_limit", "n_shared_experts", "routed_scaling_factor", "o_groups"):
            if config.number(key) < 1e-5:
                raise UnsupportedError(
                    f"config.json: {key} is {config.get(key)!r}, which is none in llama.cpp"
                )
        if (size := config.integer("index_head_dim")) % 64:
            raise UnsupportedError(
                f"config.json: index_head_dim is {size}; llama.cpp rotates indexers in blocks of 64"
            )

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``deepseek4.``."""
        self.check()
        config = self.config
        main, scaled = self.ropes()
        length = config.integer("max_position_embeddings")
        rope = rope_metadata(scaled, self.n_rotated, length) | {"rope.freq_base": main.theta}
        rope.pop("rope.scaling.attn_factor", None)
        limits = [config.number("swiglu_limit")] * self.n_layers
        return rope | stream_metadata(config) | {
            "context_length": length,
            "embedding_length": config.integer("hidden_size"),
            "block_count": self.n_layers,
            "attention.head_count": config.integer("num_attention_heads"),
            "attention.head_count_kv": 1,
            "attention.key_length": config.integer("head_dim"),
            "attention.value_length": config.integer("head_dim"),
            "attention.layer_norm_rms_epsilon": config.number("rms_norm_eps"),
            "attention.q_lora_rank": config.integer("q_lora_rank"),
            "attention.sliding_window": config.integer("sliding_window"),
            "attention.output_group_count": config.integer("o_groups"),
            "attention.output_lora_rank": config.integer("o_lora_rank"),
            "attention.compress_ratios": self.ratios,
            "attention.compress_rope_freq_base": scaled.theta,
            "attention.indexer.head_count": config.integer("index_n_heads"),
            "attention.indexer.key_length": config.integer("index_head_dim"),
            "attention.indexer.top_k": config.integer("index_topk"),
            "hash_layer_count": self.n_hashed,
            "expert_count": config.integer("n_routed_experts"),
            "expert_used_count": config.integer("num_experts_per_tok"),
            "expert_feed_forward_length": config.integer("moe_intermediate_size"),
            "expert_shared_count": config.integer("n_shared_experts"),
            "expert_weights_scale": config.number("routed_scaling_factor"),
            "expert_weights_norm": True,
            "expert_gating_func": SQRT_SOFTPLUS,
            "swiglu_clamp_exp": limits,
            "swiglu_clamp_shexp": limits,
        }  # fmt: skip

    # -- tensors ----------------------------------------------------------------------------------

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from self.embeddings()
        yield self.take("output_norm.weight", f"{self.prefix}norm.weight")
        yield from stream_targets(self, "output_hc_", f"{self.prefix}hc_head.hc_")
        for i, ratio in enumerate(self.ratios):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            for name, source in LAYER.items():
                yield self.take(f"{ours}{name}.weight", f"{theirs}{source}.weight")
            yield self.take(f"{ours}attn_sinks.weight", f"{theirs}self_attn.sinks")
            yield from layer_streams(self, ours, theirs)
            if ratio:
                yield from self._compressor(f"{ours}attn_compressor_", f"{theirs}self_attn.compressor.")
            if ratio == RATIOS["compressed_sparse_attention"]:
                indexer = f"{theirs}self_attn.compressor.indexer."
                yield from self._compressor(f"{ours}indexer_compressor_", indexer)
                for name, source in INDEXER.items():
                    yield self.take(f"{ours}indexer.{name}.weight", f"{indexer}{source}.weight")
            yield from self._mixture(ours, f"{theirs}mlp.", is_hashed=i < self.n_hashed)

    def _compressor(self, ours: str, theirs: str) -> Iterator[Target]:
        for name, source in COMPRESSOR.items():
            yield self.take(f"{ours}{name}.weight", f"{theirs}{source}.weight")
        yield self.take(f"{ours}ape.weight", f"{theirs}position_bias", is_matrix=False)

    def _mixture(self, ours: str, theirs: str, *, is_hashed: bool) -> Iterator[Target]:
        yield self.take(f"{ours}ffn_gate_inp.weight", f"{theirs}gate.weight", is_matrix=False)
        if is_hashed:
            yield self._chosen(f"{ours}ffn_gate_tid2eid.weight", f"{theirs}gate.tid2eid")
        else:
            yield self.take(f"{ours}exp_probs_b.bias", f"{theirs}gate.e_score_correction_bias")
        yield from expert_stacks(self, ours, f"{theirs}experts.", self.config.integer("n_routed_experts"))

    def _chosen(self, name: str, source: str) -> Target:
        """Return the experts of each token: int32, ``(tokens, experts a token)``."""
        n_tokens, n_used = (
            self.tensor(self._embeddings).shape[0],
            self.config.integer("num_experts_per_tok"),
        )
        self.expect_shape(source, (n_tokens, n_used))
        tensor, n_experts = self.tensor(source), self.config.integer("n_routed_experts")

        def numbers() -> Array:
            experts = tensor.array()
            if experts.min() < 0 or experts.max() >= n_experts:
                raise CheckpointError(
                    f"tensor {source} names experts that are not from 0 to {n_experts - 1}"
                )
            return experts.astype("<i4").view(np.uint8)

        kind = gguf.GGMLQuantizationType.I32
        return self.compute(name, (n_tokens, n_used), tensor.sources, numbers, raw_type=kind)
