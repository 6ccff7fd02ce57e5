"""Nemotron-H: Mamba-2, attention, and MLP or experts, each a layer of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Target, Value
from convert.architectures.decoder import DecoderOnly
from convert.architectures.experts import part
from convert.architectures.mamba import Mamba
from convert.errors import CheckpointError, UnsupportedError
from convert.source.config import Config
from convert.source.tensor import SourceTensor

KINDS = {
    "M": "mamba",
    "*": "attention",
    "-": "mlp",
    "E": "moe",
    "linear_attention": "mamba",
    "full_attention": "attention",
    "mamba": "mamba",
    "attention": "attention",
    "mlp": "mlp",
    "moe": "moe",
}
"""Kinds of layer, by the letters of ``hybrid_override_pattern``."""

ATTENTION = {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj"}
MLP = {"ffn_up": "up_proj", "ffn_down": "down_proj"}
SHARED_EXPERT = {"ffn_up_shexp": "shared_experts.up_proj", "ffn_down_shexp": "shared_experts.down_proj"}
LATENT = {"ffn_latent_down": "fc1_latent_proj", "ffn_latent_up": "fc2_latent_proj"}


class NemotronH(DecoderOnly):
    """A hybrid model without positions, as recurrent layers keep the order of tokens."""

    names = ("NemotronHForCausalLM",)
    gguf_name = "nemotron_h"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 4096,
        "layer_norm_epsilon": 1e-5,
        "ssm_state_size": 128,
        "mamba_num_heads": 128,
        "mamba_head_dim": 64,
        "n_groups": 8,
        "conv_kernel": 4,
        "use_conv_bias": True,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "moe_intermediate_size": 7688,
        "moe_shared_expert_intermediate_size": 7688,
        "num_experts_per_tok": 2,
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": True,
        "n_group": 1,
        "topk_group": 1,
    }
    aliases: ClassVar[Mapping[str, str]] = {
        "attention_head_dim": "head_dim",
        "layer_types": "layers_block_type",
        "mamba_conv_bias": "use_conv_bias",
        "mamba_d_conv": "conv_kernel",
        "mamba_dt_limit": "time_step_limit",
        "mamba_n_groups": "n_groups",
        "num_local_experts": "n_routed_experts",
    }
    prefixes = ("backbone.", "model.")
    embedding = "embeddings.weight"
    without_lora = ("blk.*.ssm_conv1d.weight", "blk.*.ffn_latent_down.weight", "blk.*.ffn_latent_up.weight")
    ignored: tuple[str, ...] = ("mtp.*",)  # a draft of the next but one token, no part of the model

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        super().__init__(config, tensors)
        if "moe" in self.kinds:
            self.gguf_name = "nemotron_h_moe"

    @cached_property
    def kinds(self) -> list[str]:
        """Each layer's kind: mamba, attention, mlp or moe. Raises CheckpointError for another."""
        pattern = self.config.get("layers_block_type") or self.config.get("hybrid_override_pattern")
        if not isinstance(pattern, str | list) or not pattern:
            raise CheckpointError(
                "config.json: neither layers_block_type nor hybrid_override_pattern names layers"
            )
        if unknown := set(map(str, pattern)) - KINDS.keys():
            raise CheckpointError(f"config.json: {sorted(unknown)} are no kinds of layers")
        return [KINDS[kind] for kind in pattern]

    @cached_property
    def n_layers(self) -> int:
        """Layers."""
        return len(self.kinds)

    # -- metadata ---------------------------------------------------------------------------------

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        self.check()
        config, epsilon = self.config, self.config.number("layer_norm_epsilon")
        n_heads = config.integer("num_attention_heads")
        n_heads_kv = config.integer("num_key_value_heads", n_heads)
        head_size = config.integer("head_dim")
        width = config.integer("moe_intermediate_size" if "moe" in self.kinds else "intermediate_size")
        values: dict[str, Value] = {
            "context_length": config.integer("max_position_embeddings"),
            "embedding_length": config.integer("hidden_size"),
            "block_count": self.n_layers,
            # llama.cpp tells the layers' kinds by these two: attention has the one, an MLP the other
            "attention.head_count_kv": [n_heads_kv if kind == "attention" else 0 for kind in self.kinds],
            "feed_forward_length": [width if kind in ("mlp", "moe") else 0 for kind in self.kinds],
            "attention.head_count": n_heads,
            "attention.key_length": head_size,
            "attention.value_length": head_size,
            "attention.layer_norm_epsilon": epsilon,
            "attention.layer_norm_rms_epsilon": epsilon,
            **self.mamba.metadata(),
        }
        return values | (self.experts() if "moe" in self.kinds else {})

    @cached_property
    def mamba(self) -> Mamba:
        """The sizes of the recurrent layers."""
        integer = self.config.integer
        return Mamba(
            integer("mamba_num_heads"),
            integer("mamba_head_dim"),
            max(1, integer("n_groups")),
            integer("ssm_state_size"),
            integer("conv_kernel"),
            bool(self.config.get("use_conv_bias")),
        )

    @property
    def fused(self) -> Mapping[str, tuple[str, int]]:
        """Tinker trains the gate and the input of a recurrent layer apart."""
        return {
            "mixer.gate_proj": ("mixer.in_proj", 0),
            "mixer.x_proj": ("mixer.in_proj", self.mamba.inner),
        }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        config = self.config
        config.expect("mlp_hidden_act", "relu2")
        config.expect("mamba_hidden_act", "silu")
        config.expect("use_bias", False)
        config.expect("mamba_proj_bias", False)
        infinite = {"__float__": "Infinity"}  # as transformers 5 writes it
        config.expect("time_step_limit", [0.0, float("inf")], [0.0, infinite])
        config.expect("attention_bias", False, True)
        config.expect("mlp_bias", False, *([True] if "moe" not in self.kinds else []))
        if {"mlp", "moe"} <= set(self.kinds):
            raise UnsupportedError(
                "config.json: there are layers of both MLP and experts; llama.cpp's nemotron_h knows "
                "one kind a model"
            )

    def experts(self) -> dict[str, Value]:
        """Return the keys of the routed and shared experts."""
        config = self.config
        values: dict[str, Value] = {
            "expert_count": config.integer("n_routed_experts"),
            "expert_used_count": config.integer("num_experts_per_tok"),
            "expert_feed_forward_length": config.integer("moe_intermediate_size"),
            "expert_shared_count": config.integer("n_shared_experts"),
            "expert_shared_feed_forward_length": config.integer("moe_shared_expert_intermediate_size"),
            "expert_weights_norm": bool(config.get("norm_topk_prob")),
            "expert_weights_scale": config.number("routed_scaling_factor"),
        }
        n_groups, n_used = config.integer("n_group"), config.integer("topk_group")
        if n_used < n_groups:
            values |= {"expert_group_count": n_groups, "expert_group_used_count": n_used}
        if "moe_latent_size" in config:
            values["moe_latent_size"] = config.integer("moe_latent_size")
        return values

    # -- tensors ----------------------------------------------------------------------------------

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from self.embeddings()
        yield self.take("output_norm.weight", f"{self.prefix}norm_f.weight")
        for i, kind in enumerate(self.kinds):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            yield self.take(f"{ours}attn_norm.weight", f"{theirs}norm.weight")
            mixer = f"{theirs}mixer."
            if kind == "mamba":
                yield from self.mamba.targets(self, ours, mixer)
            elif kind == "attention":
                # transformers makes none, whatever attention_bias says
                yield from self.matrices(ours, mixer, ATTENTION, self.has(f"{mixer}q_proj.bias"))
            elif kind == "mlp":
                yield from self.matrices(ours, mixer, MLP, bool(self.config.get("mlp_bias")))
            else:
                yield from self.mixture(ours, mixer)

    def matrices(
        self, ours: str, theirs: str, names: Mapping[str, str], biased: bool = False
    ) -> Iterator[Target]:
        """Yield matrices as they are, and their biases."""
        for name, source in names.items():
            yield self.take(f"{ours}{name}.weight", f"{theirs}{source}.weight")
            if biased:
                yield self.take(f"{ours}{name}.bias", f"{theirs}{source}.bias")

    def mixture(self, ours: str, theirs: str) -> Iterator[Target]:
        """Yield a layer of experts: the router, in float32, the routed and the shared ones."""
        yield self.take(f"{ours}ffn_gate_inp.weight", f"{theirs}gate.weight", is_matrix=False)
        yield self.take(f"{ours}exp_probs_b.bias", f"{theirs}gate.e_score_correction_bias")
        for name, source in MLP.items():
            stacked = f"{theirs}experts.{source}"
            if self.has(stacked):
                yield part(self, f"{ours}{name}_exps.weight", stacked)
            else:
                each = range(self.config.integer("n_routed_experts"))
                yield self.stack(
                    f"{ours}{name}_exps.weight", [f"{theirs}experts.{e}.{source}.weight" for e in each]
                )
        yield from self.matrices(ours, theirs, SHARED_EXPERT)
        if "moe_latent_size" in self.config:
            yield from self.matrices(ours, theirs, LATENT)


class NemotronHOmni(NemotronH):
    """The text part of Nemotron 3 Omni and 3.5 Super-VL."""

    names = ("NemotronH_Omni_Reasoning_V3",)
    prefixes = (
        "language_model.backbone.",
        "language_model.model.",
    )  # as published; as transformers 5 has it
    heads = ("language_model.lm_head.weight",)
    ignored = (
        *NemotronH.ignored,
        "*language_model.mtp.*",
        "vision_model.*",
        "vision_final_layernorm.*",
        "multi_modal_projector.*",
        "mlp1.*",
        "audio_tower.*",
        "embed_audio.*",
        "sound_encoder.*",
        "sound_projection.*",
    )
