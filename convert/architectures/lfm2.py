"""LFM2, dense and with experts: short convolutions, and attention in some layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from convert.architectures.architecture import Target, Value
from convert.architectures.experts import SIGMOID
from convert.architectures.mixture import NUMBERED, Mixture
from convert.architectures.transformer import Transformer

CONV, FULL = "conv", "full_attention"
NORMS = {"attn_norm": "operator_norm", "ffn_norm": "ffn_norm"}
MLP = {"ffn_gate": "feed_forward.w1", "ffn_up": "feed_forward.w3", "ffn_down": "feed_forward.w2"}
ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.out_proj",
    "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
}


class Lfm2(Transformer):
    """A layer is a convolution over a few tokens, or attention; each has a gated MLP."""

    names: ClassVar[tuple[str, ...]] = ("Lfm2ForCausalLM",)
    gguf_name = "lfm2"
    is_tied = True
    layer = NORMS | MLP
    kinds = frozenset((CONV, FULL))
    epsilon = ("attention.layer_norm_rms_epsilon", "norm_eps")
    last_norm = ("token_embd_norm", "embedding_norm")  # llama.cpp's name for what comes last
    usual_rope: ClassVar[Mapping[str, Any]] = {"rope_theta": 1000000.0}
    without_lora = ("blk.*.shortconv.conv.weight",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 128000,
        "norm_eps": 1e-5,
        "conv_L_cache": 3,
        "block_multiple_of": 256,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": True,
    }
    aliases: ClassVar[Mapping[str, str]] = {"block_ff_dim": "intermediate_size"}

    @cached_property
    def types(self) -> list[str]:
        """Each layer's kind; older configs list the numbers of those with attention."""
        full = self.config.get("full_attn_idxs", range(self.n_layers))
        return list(self.layer_types([FULL if i in full else CONV for i in range(self.n_layers)]))

    @cached_property
    def inner(self) -> int:
        """Numbers in the middle of an MLP: the setting, or two thirds of it, rounded up."""
        inner = self.config.integer("intermediate_size")
        if not self.config.get("block_auto_adjust_ff_dim", False):
            return inner
        factor, step = self.config.get("block_ffn_dim_multiplier"), self.config.integer("block_multiple_of")
        inner = int(2 * inner / 3)
        return inner if factor is None else step * -(-int(factor * inner) // step)

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.expect_usual_heads()
        self.config.expect("conv_bias", False)
        self.expect_both_kinds([kind == CONV for kind in self.types])

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        return super().metadata() | {
            "feed_forward_length": self.inner,
            "attention.head_count_kv": [self.n_heads_kv if kind == FULL else 0 for kind in self.types],
            "shortconv.l_cache": self.config.integer("conv_L_cache"),
        }

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each part of a layer."""
        width = self.config.integer("hidden_size")
        mlp = {
            "ffn_gate": (self.inner, width),
            "ffn_up": (self.inner, width),
            "ffn_down": (width, self.inner),
        }
        return {**super().shapes, **mlp}

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from super().targets()
        for i, kind in enumerate(self.types):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            if kind == FULL:
                yield from self.parts(ATTENTION, ours, theirs)
            else:
                yield from self.convolution(f"{ours}shortconv.", f"{theirs}conv.")

    def convolution(self, ours: str, theirs: str) -> Iterator[Target]:
        """Yield a convolution: (channels, 1, kernel) without the 1, in float32, and its two projections."""
        shape = (self.config.integer("hidden_size"), 1, self.config.integer("conv_L_cache"))
        self.expect_shape(f"{theirs}conv.weight", shape)
        kernel = self.tensor(f"{theirs}conv.weight")
        yield self.compute(
            f"{ours}conv.weight",
            (shape[0], shape[2]),
            kernel.sources,
            lambda: np.asarray(kernel.array())[:, 0],
            is_matrix=False,
        )
        for name in ("in_proj", "out_proj"):
            yield self.take(f"{ours}{name}.weight", f"{theirs}{name}.weight")


class Lfm2Moe(Mixture, Lfm2):
    """Sigmoid-routed experts in all layers but the first ones."""

    names = ("Lfm2MoeForCausalLM",)
    gguf_name = "lfm2moe"
    layer = NORMS
    mlp = MLP
    router = "feed_forward.gate"
    experts = "feed_forward.experts."
    renamed: ClassVar[Mapping[str, str]] = NUMBERED
    correction = "feed_forward.expert_bias"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2048,
        "intermediate_size": 7168,
        "moe_intermediate_size": 1792,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 128000,
        "norm_eps": 1e-5,
        "conv_L_cache": 3,
        "num_dense_layers": 2,
        "num_experts_per_tok": 4,
        "num_experts": 32,
        "use_expert_bias": True,
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": True,
    }
    aliases: ClassVar[Mapping[str, str]] = {}

    @cached_property
    def n_dense(self) -> int:
        """How many layers have an MLP before those with experts."""
        return min(self.n_layers, self.config.integer("num_dense_layers"))

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("norm_topk_prob", True)
        self.config.expect("use_expert_bias", True)
        self.config.expect("routed_scaling_factor", 1.0)

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        return super().metadata() | {
            "leading_dense_block_count": self.n_dense,
            "expert_gating_func": SIGMOID,
        }
