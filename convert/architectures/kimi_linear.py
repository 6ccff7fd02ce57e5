"""Kimi-Linear: delta attention whose memory fades by channel, and latent attention without positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from convert.architectures.architecture import Target, Value
from convert.architectures.deepseek import DeepSeekV3
from convert.architectures.mixture import NUMBERED
from convert.errors import CheckpointError
from convert.source.config import Config
from convert.source.tensor import Array, SourceTensor

LINEAR, FULL = "linear_attention", "full_attention"
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
DELTA = {
    "attn_q": "q_proj",
    "attn_k": "k_proj",
    "attn_v": "v_proj",
    "attn_output": "o_proj",
    "ssm_f_a": "forget_gate.f_a_proj",
    "ssm_f_b": "forget_gate.f_b_proj",
    "ssm_beta": "b_proj",
    "ssm_g_a": "g_a_proj",
    "ssm_g_b": "g_b_proj",
    "ssm_norm": "o_norm",
}
"""The tensors of delta attention that stay as they are."""


class KimiLinear(DeepSeekV3):
    """DeepSeek-V3's experts and latent attention, which nothing rotates, in every fourth layer or so."""

    names: ClassVar[tuple[str, ...]] = ("KimiLinearForCausalLM",)
    gguf_name: str = "kimi-linear"
    needs_output = True
    decay_axes: ClassVar[tuple[int, ...]] = (1,)
    """The axes that llama.cpp's ``ssm_a`` has besides the heads."""
    renamed: ClassVar[Mapping[str, str]] = {
        r"\.block_sparse_moe\.": ".mlp.",
        r"\.self_attn\.(f_a_proj|f_b_proj|dt_bias|A_log)": r".self_attn.forget_gate.\1",
        **NUMBERED,
    }
    without_lora: ClassVar[tuple[str, ...]] = (
        *DeepSeekV3.without_lora,
        "blk.*.attn_k.weight",
        "blk.*.attn_v.weight",
        "blk.*.attn_output.weight",
        "blk.*.ssm_*.weight",
    )
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "moe_intermediate_size": 1024,
        "num_hidden_layers": 27,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "n_shared_experts": 1,
        "n_routed_experts": 256,
        "routed_scaling_factor": 2.446,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 1,
        "norm_topk_prob": True,
        "max_position_embeddings": 1048576,
        "rms_norm_eps": 1e-5,
        "rope_interleave": True,
    }
    aliases: ClassVar[Mapping[str, str]] = {
        "model_max_length": "max_position_embeddings",
        "moe_renormalize": "norm_topk_prob",
        "num_expert_group": "n_group",
        "num_experts": "n_routed_experts",
        "num_local_experts": "n_routed_experts",
        "num_experts_per_token": "num_experts_per_tok",
        "num_shared_experts": "n_shared_experts",
    }

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        super().__init__(config, tensors)
        nested = self.config.get("linear_attn_config", {})
        self.kernel = self.config.integer("linear_conv_kernel_dim", nested.get("short_conv_kernel_size", 4))
        self.delta_size = self.config.integer("linear_head_dim", nested.get("head_dim", 128))
        self.config.expect("linear_num_heads", self.n_heads)

    @cached_property
    def is_linear(self) -> list[bool]:
        """For each layer whether it has delta attention; published configs count them from 1."""
        nested = self.config.get("linear_attn_config", {})
        full = nested.get("full_attn_layers", [i for i in range(5, self.n_layers + 1) if i % 4 == 1])
        usual = [FULL if i + 1 in full else LINEAR for i in range(self.n_layers)]
        types = self.config.get("layer_types", usual)
        if len(types) != self.n_layers or set(types) - {LINEAR, FULL}:
            raise CheckpointError(
                f"config.json: layer_types must say {LINEAR} or {FULL} for each of {self.n_layers} layers"
            )
        return [kind == LINEAR for kind in types]

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        self.config.expect("norm_topk_prob", True)
        self.config.expect("q_lora_rank")
        self.expect_both_kinds(self.is_linear)
        return super().metadata() | {
            "attention.head_count_kv": [0 if is_linear else 1 for is_linear in self.is_linear],
            "kda.head_dim": self.delta_size,
            "ssm.conv_kernel": self.kernel,
        }

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from self.embeddings()
        yield self.take("output_norm.weight", f"{self.prefix}norm.weight")
        for i, is_linear in enumerate(self.is_linear):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            for name, source in NORMS.items():
                yield self.take(f"{ours}{name}.weight", f"{theirs}{source}.weight")
            attention = self._delta if is_linear else self._latent
            yield from attention(ours, f"{theirs}self_attn.")
            mlp = self._dense if i < self.n_dense else self._mixture
            yield from mlp(ours, f"{theirs}mlp.")

    def _latent(self, ours: str, theirs: str) -> Iterator[Target]:
        yield from self._attention(ours, theirs)
        yield self.take(f"{ours}attn_kv_a_norm.weight", f"{theirs}kv_a_layernorm.weight")
        yield self.take(f"{ours}attn_output.weight", f"{theirs}o_proj.weight")

    def _delta(self, ours: str, theirs: str) -> Iterator[Target]:
        for name, source in DELTA.items():
            yield self.take(f"{ours}{name}.weight", f"{theirs}{source}.weight")
        yield from self._kernels(ours, theirs)
        n_channels = self.n_heads * self.delta_size
        yield self.vector(f"{ours}ssm_dt.bias", f"{theirs}forget_gate.dt_bias", n_channels)
        decay = self.vector(f"{ours}ssm_a", f"{theirs}forget_gate.A_log", self.n_heads)

        def decays() -> Array:
            numbers = np.concatenate(list(decay.pieces())).astype(np.float32)
            return -np.exp(numbers).reshape(self.n_heads, *self.decay_axes)

        yield self.compute(
            decay.name, (self.n_heads, *self.decay_axes), decay.sources, decays, is_matrix=False
        )

    def _kernels(self, ours: str, theirs: str) -> Iterator[Target]:
        """Yield the convolutions of queries, keys and values: apart, or one over the other."""
        n, shape = self.n_heads * self.delta_size, (self.n_heads * self.delta_size, 1, self.kernel)
        whole = f"{theirs}conv1d.weight"
        for i, part in enumerate("qkv"):
            source = whole if self.has(whole) else f"{theirs}{part}_conv1d.weight"
            self.expect_shape(source, (3 * n, *shape[1:]) if self.has(whole) else shape)
            rows = np.arange(i * n, (i + 1) * n) if self.has(whole) else None
            yield self.take(f"{ours}ssm_conv1d_{part}.weight", source, rows=rows, is_matrix=False)
