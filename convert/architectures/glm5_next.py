"""GLM-5.3-Flash: delta attention, latent attention to chosen pools of tokens, residual streams that mix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Target, Value
from convert.architectures.deepseek import DeepSeekV3
from convert.architectures.deepseek_sparse import SharedChoices, indexer_targets
from convert.architectures.hyper_connections import RENAMED, layer_streams, stream_metadata
from convert.architectures.kimi_linear import FULL, LINEAR, KimiLinear
from convert.errors import CheckpointError, UnsupportedError

INDEXED = "indexed_attention"
POOLS = {"gate": "index_kpool_compress_gate", "ape": "index_kpool_compress_ape"}


class Glm5Next(SharedChoices, KimiLinear):
    """Kimi-Linear's layers; a layer with latent attention may take over another one's choice of pools."""

    names = ("Glm5NextForConditionalGeneration",)
    gguf_name = "glm5-next"
    needs_output = True
    decay_axes = ()
    prefixes = ("model.language_model.", "language_model.model.", "model.")
    heads = ("lm_head.weight", "language_model.lm_head.weight")
    ignored = (*KimiLinear.ignored, "*visual.*")
    renamed: ClassVar[Mapping[str, str]] = {**KimiLinear.renamed, **RENAMED}
    without_lora = (
        "output.weight",
        "blk.*.attn_*.weight",
        "blk.*.ssm_*.weight",
        "blk.*.indexer*.weight",
        "blk.*.hc_*.weight",
    )
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 45,
        "num_attention_heads": 64,
        "num_key_value_heads": 64,
        "n_shared_experts": 1,
        "n_routed_experts": 288,
        "routed_scaling_factor": 2.5,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 0,
        "v_head_dim": 256,
        "qk_nope_head_dim": 256,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 3,
        "norm_topk_prob": True,
        "max_position_embeddings": 1048576,
        "rms_norm_eps": 1e-5,
        "rope_interleave": True,
        "index_topk": 2048,
        "index_head_dim": 128,
        "index_n_heads": 32,
        "index_kpool": 16,
        "index_kpool_always_select_tail": True,
        "swiglu_limit": 10.0,
        "linear_lower_bound": -5.0,
        "hc_mult": 4,
        "hc_eps": 1e-6,
        "hc_sinkhorn_iters": 20,
    }
    aliases: ClassVar[Mapping[str, str]] = {"num_local_experts": "n_routed_experts"}

    @cached_property
    def is_linear(self) -> list[bool]:
        """For each layer whether it has delta attention; every fourth has not where nothing is said."""
        usual = [INDEXED if i % 4 == 3 else LINEAR for i in range(self.n_layers)]
        types = self.config.get("layer_types", usual)
        if len(types) != self.n_layers or set(types) - {LINEAR, INDEXED, FULL}:
            raise CheckpointError(
                f"config.json: layer_types must say {LINEAR} or {INDEXED} for each of "
                f"{self.n_layers} layers, not {types!r:.60}"
            )
        return [kind == LINEAR for kind in types]

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``glm5-next.``."""
        config = self.config
        self.expect_both_kinds(self.is_linear)
        config.expect("qk_rope_head_dim", 0)
        config.expect("attention_bias", False)
        limit = config.number("swiglu_limit")
        if limit < 1e-5:
            raise UnsupportedError(f"config.json: swiglu_limit is {limit:g}, which is none in llama.cpp")
        return DeepSeekV3.metadata(self) | stream_metadata(config) | self._pools() | {
            "attention.layer_norm_epsilon": 1e-6,  # of the indexers' keys
            "attention.head_count_kv": [0 if is_linear else 1 for is_linear in self.is_linear],
            "kda.head_dim": self.delta_size,
            "ssm.conv_kernel": self.kernel,
            "swiglu_clamp_exp": [limit] * self.n_layers,
            "swiglu_clamp_shexp": [limit] * self.n_layers,
            **self._bound(),
        }  # fmt: skip

    def _bound(self) -> dict[str, Value]:
        """Return what a channel's memory fades by at most, in logarithms of a token's share."""
        nested = self.config.get("linear_attn_config", {})
        bound = nested.get("gate_lower_bound", self.config.get("linear_lower_bound"))
        return {} if bound is None else {"kda.gate_lower_bound": float(bound)}

    def _pools(self) -> dict[str, Value]:
        config = self.config
        config.expect("index_kpool_always_select_tail", True)  # else the first tokens see nothing
        size, n_chosen = config.integer("index_kpool"), config.integer("index_topk")
        if size < 2 or n_chosen % size:
            raise UnsupportedError(
                f"config.json: the best {n_chosen} tokens (index_topk) in pools of {size} (index_kpool); "
                "llama.cpp's glm5-next chooses whole pools of two tokens or more"
            )
        return {
            "attention.indexer.head_count": config.integer("index_n_heads"),
            "attention.indexer.key_length": config.integer("index_head_dim"),
            "attention.indexer.top_k": n_chosen,
            "attention.indexer.kpool": size,
            "attention.indexer.kpool_select_tail": True,
            "attention.indexer.types": self.full_indexers(),
        }

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from super().targets()
        for i, is_full in enumerate(self.full_indexers()):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            yield from layer_streams(self, ours, theirs)
            if is_full and not self.is_linear[i]:
                indexer = f"{theirs}self_attn.indexer."
                yield from indexer_targets(self, f"{ours}indexer.", indexer)
                for name, source in POOLS.items():
                    yield self.take(
                        f"{ours}indexer_compressor_{name}.weight",
                        f"{indexer}{source}",
                        is_matrix=name == "gate",
                    )

    def _refuse_lite(self) -> None:
        """Accept any number of layers: llama.cpp takes none for a Lite model here."""
