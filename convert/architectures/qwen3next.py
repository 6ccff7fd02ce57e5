"""Qwen3-Next: Qwen3.5's layers with experts; the rows of linear attention are in another order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from convert.architectures.architecture import Rows, Target, Value
from convert.architectures.qwen35 import Qwen35Moe


class Qwen3Next(Qwen35Moe):
    """For each key head a checkpoint has its query, its key, and its value heads' values and gates."""

    names = ("Qwen3NextForCausalLM",)
    gguf_name = "qwen3next"
    prefixes = ("model.",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "num_experts_per_tok": 10,
        "num_experts": 512,
        "norm_topk_prob": True,
    }

    @property
    def fused(self) -> Mapping[str, tuple[str, int]]:
        """Queries, keys and values are no runs of rows here."""
        return {}

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("decoder_sparse_step", 1)
        self.expect_both_kinds(self.is_linear)

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        values = super().metadata()
        del values["rope.dimension_sections"]
        return values

    def linear_attention(self, ours: str, theirs: str) -> Iterator[Target]:
        """Yield a layer of linear attention."""
        width, inner = self.config.integer("hidden_size"), self.n_heads_value * self.linear_size
        keys = self.n_heads_key * self.linear_size
        for name, shape in (
            ("in_proj_qkvz.weight", (2 * keys + 2 * inner, width)),
            ("in_proj_ba.weight", (2 * self.n_heads_value, width)),
            ("dt_bias", (self.n_heads_value,)),
            ("A_log", (self.n_heads_value,)),
            ("out_proj.weight", (width, inner)),
        ):
            self.expect_shape(f"{theirs}{name}", shape)
        qkv, z = self._runs()
        yield self.take(f"{ours}attn_qkv.weight", f"{theirs}in_proj_qkvz.weight", rows=qkv)
        yield self.take(f"{ours}attn_gate.weight", f"{theirs}in_proj_qkvz.weight", rows=z)
        yield self.take(f"{ours}ssm_ba.weight", f"{theirs}in_proj_ba.weight")
        heads = np.arange(self.n_heads_value)
        yield self.take(f"{ours}ssm_dt.bias", f"{theirs}dt_bias")
        yield self._decay(f"{ours}ssm_a", f"{theirs}A_log", heads)
        yield self._kernel(
            f"{ours}ssm_conv1d.weight", f"{theirs}conv1d.weight", np.arange(2 * keys + inner)
        )
        yield self.take(f"{ours}ssm_norm.weight", f"{theirs}norm.weight")
        yield self.take(f"{ours}ssm_out.weight", f"{theirs}out_proj.weight")

    def _runs(self) -> tuple[Rows, Rows]:
        """Return the rows of all queries, keys and values, and those of the gates."""
        key, value = self.linear_size, self.linear_size * self.n_heads_value // self.n_heads_key
        heads = np.arange(self.n_heads_key * 2 * (key + value)).reshape(self.n_heads_key, -1)
        bounds = np.cumsum([key, key, value])
        q, k, v, z = (part.reshape(-1) for part in np.split(heads, bounds, axis=1))
        return np.concatenate([q, k, v]), z
