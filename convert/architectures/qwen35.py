"""Qwen3.5, 3.6 and 3.8, dense and with experts: three layers of linear attention to one of full attention.

The text part of the vision-language checkpoints (``model.language_model.*``), or a checkpoint of it alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from convert.architectures.architecture import Rows, Target, Value
from convert.architectures.mixture import Mixture, shared_expert
from convert.architectures.rotary import interleaved_sections
from convert.architectures.transformer import ATTENTION, GATED_MLP, HEAD_NORMS, Transformer
from convert.errors import CheckpointError
from convert.source.config import Config
from convert.source.tensor import Array, SourceTensor

LINEAR, FULL = "linear_attention", "full_attention"
NORMS = {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"}


class Qwen35(Transformer):
    """Gated delta net and gated full attention in turn, each followed by a gated MLP.

    Layers that predict further tokens (``mtp.*``) are no part of a token's probability and are left out.
    """

    names: ClassVar[tuple[str, ...]] = ("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM")
    gguf_name = "qwen35"
    prefixes: ClassVar[tuple[str, ...]] = ("model.language_model.", "model.")
    layer = NORMS | GATED_MLP
    partial_rotation = True
    usual_rope: ClassVar[Mapping[str, Any]] = {"partial_rotary_factor": 0.25}
    added_to_norms = 1.0
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
    }
    without_lora = ("blk.*.ssm_conv1d.weight",)
    ignored = (*Transformer.ignored, "model.visual.*", "visual.*", "mtp.*")

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        super().__init__(config, tensors)
        self.n_heads_key = self.config.integer("linear_num_key_heads")
        self.n_heads_value = self.config.integer("linear_num_value_heads")
        self.linear_size = self.config.integer("linear_value_head_dim")
        self.is_linear = self._linear_layers()

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("rms_norm_eps", 1e-6)  # transformers norms linear queries and keys with 1e-6
        self.config.expect("linear_key_head_dim", self.linear_size)
        self.config.expect("attn_output_gate", True)
        if not self.n_heads_key or self.n_heads_value % self.n_heads_key:
            raise CheckpointError(
                f"config.json: linear_num_value_heads ({self.n_heads_value}) must be a multiple of "
                f"linear_num_key_heads ({self.n_heads_key})"
            )

    @property
    def fused(self) -> Mapping[str, tuple[str, int]]:
        """Tinker trains queries, keys and values of linear attention apart."""
        keys = self.n_heads_key * self.linear_size
        return {
            "linear_attn.in_proj_q": ("linear_attn.in_proj_qkv", 0),
            "linear_attn.in_proj_k": ("linear_attn.in_proj_qkv", keys),
            "linear_attn.in_proj_v": ("linear_attn.in_proj_qkv", 2 * keys),
        }

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        return super().metadata() | {
            "attention.recurrent_layers": self.is_linear,
            "rope.dimension_sections": interleaved_sections(self.n_rotated // 2),
            "ssm.conv_kernel": self.config.integer("linear_conv_kernel_dim"),
            "ssm.state_size": self.linear_size,
            "ssm.group_count": self.n_heads_key,
            "ssm.time_step_rank": self.n_heads_value,
            "ssm.inner_size": self.linear_size * self.n_heads_value,
        }

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from super().targets()
        for i, is_linear in enumerate(self.is_linear):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            if is_linear:
                yield from self.linear_attention(ours, f"{theirs}linear_attn.")
                continue
            for name, source in (ATTENTION | HEAD_NORMS).items():
                yield from self.part(name, f"{ours}{name}", f"{theirs}{source}")

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each part of a layer; queries are fused with the gate of the attention's output."""
        rows, width = super().shapes["attn_q"]
        return {**super().shapes, "attn_q": (2 * rows, width)}

    def linear_attention(self, ours: str, theirs: str) -> Iterator[Target]:
        """Yield a layer of linear attention."""
        keys = np.arange(2 * self.n_heads_key * self.linear_size)  # the rows of queries and keys stay
        numbers, heads = self._tiled(self.linear_size), self._tiled(1)
        qkv = np.concatenate([keys, len(keys) + numbers])
        width, inner = self.config.integer("hidden_size"), len(numbers)
        for name, shape in (
            ("in_proj_qkv.weight", (len(qkv), width)),
            ("in_proj_z.weight", (inner, width)),
            ("in_proj_a.weight", (len(heads), width)),
            ("in_proj_b.weight", (len(heads), width)),
            ("dt_bias", (len(heads),)),
            ("A_log", (len(heads),)),
            ("out_proj.weight", (width, inner)),
        ):
            self.expect_shape(f"{theirs}{name}", shape)
        yield self.take(f"{ours}attn_qkv.weight", f"{theirs}in_proj_qkv.weight", rows=qkv)
        yield self.take(f"{ours}attn_gate.weight", f"{theirs}in_proj_z.weight", rows=numbers)
        yield self.take(f"{ours}ssm_alpha.weight", f"{theirs}in_proj_a.weight", rows=heads)
        yield self.take(f"{ours}ssm_beta.weight", f"{theirs}in_proj_b.weight", rows=heads)
        yield self.take(f"{ours}ssm_dt.bias", f"{theirs}dt_bias", rows=heads)
        yield self._decay(f"{ours}ssm_a", f"{theirs}A_log", heads)
        yield self._kernel(f"{ours}ssm_conv1d.weight", f"{theirs}conv1d.weight", qkv)
        yield self.take(f"{ours}ssm_norm.weight", f"{theirs}norm.weight")
        yield self.take(f"{ours}ssm_out.weight", f"{theirs}out_proj.weight", columns=numbers)

    def _tiled(self, size: int) -> Rows:
        """Return the order of value heads in which llama.cpp repeats the key heads.

        A checkpoint has the value heads of key head 0 first, then those of key head 1; llama.cpp the
        first value head of every key head, then the second.

        Args:
            size: rows of a head.
        """
        rows = np.arange(self.n_heads_value * size).reshape(self.n_heads_key, -1, size)
        return rows.swapaxes(0, 1).reshape(-1)

    def _decay(self, name: str, source: str, heads: Rows) -> Target:
        tensor = self.tensor(source)

        def decay() -> Array:
            return -np.exp(tensor.array().astype(np.float32)[heads])

        return self.compute(name, (len(heads),), tensor.sources, decay, is_matrix=False)

    def _kernel(self, name: str, source: str, rows: Rows) -> Target:
        """Return the convolution over time, one kernel a channel: (channels, 1, kernel) without the 1."""
        self.expect_shape(source, (len(rows), 1, self.config.integer("linear_conv_kernel_dim")))
        tensor = self.tensor(source)
        shape = (len(rows), tensor.shape[2])
        return self.compute(name, shape, tensor.sources, lambda: tensor.array()[rows, 0], is_matrix=False)

    def _linear_layers(self) -> list[bool]:
        interval = self.config.integer("full_attention_interval")
        types = self.config.get("layer_types")
        if types is None:
            types = [LINEAR if (i + 1) % interval else FULL for i in range(self.n_layers)]
        if len(types) != self.n_layers or not set(types) <= {LINEAR, FULL}:
            raise CheckpointError(
                f"config.json: layer_types must say {LINEAR} or {FULL} for each of {self.n_layers} layers"
            )
        return [kind == LINEAR for kind in types]


class Qwen35Moe(Mixture, Qwen35):
    """Qwen3.5 with routed experts and a gated shared expert in every layer."""

    names: ClassVar[tuple[str, ...]] = ("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM")
    gguf_name = "qwen35moe"
    layer = NORMS
    shared = shared_expert("mlp.shared_expert")
    gate = "mlp.shared_expert_gate"
    defaults: ClassVar[Mapping[str, Any]] = {
        **Qwen35.defaults,
        "hidden_size": 2048,
        "intermediate_size": 0,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "num_experts_per_tok": 8,
        "num_experts": 256,
    }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("norm_topk_prob", True)
        self.config.expect("mlp_only_layers", [])
