"""Falcon-H1: attention and Mamba-2 side by side in every layer, with multipliers everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from convert.architectures.architecture import Target, Value
from convert.architectures.mamba import Mamba
from convert.architectures.transformer import ATTENTION, Transformer
from convert.source.tensor import Array

MULTIPLIERS = (
    "embedding_multiplier",
    "lm_head_multiplier",
    "key_multiplier",
    "attention_in_multiplier",
    "attention_out_multiplier",
    "ssm_in_multiplier",
    "ssm_out_multiplier",
    "mlp_multipliers",
    "ssm_multipliers",
)
"""Settings that are numbers, or a list of them; the file has them too, for adapters on it."""


class FalconH1(Transformer):
    """llama.cpp has no multipliers here, so each is part of the matrix before it."""

    names = ("FalconH1ForCausalLM",)
    gguf_name = "falcon-h1"
    layer: ClassVar[Mapping[str, str]] = {
        "attn_norm": "input_layernorm",
        **ATTENTION,
        "ffn_gate": "feed_forward.gate_proj",
        "ffn_up": "feed_forward.up_proj",
        "ffn_down": "feed_forward.down_proj",
    }
    last_norm = ("output_norm", "final_layernorm")
    needs_output = True  # the two matrices have multipliers of their own
    without_lora = ("blk.*.ssm_conv1d.weight",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "mamba_d_ssm": 1024,
        "mamba_n_heads": 128,
        "mamba_n_groups": 1,
        "mamba_d_state": 256,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_conv_bias": True,
        "mamba_norm_before_gate": True,
        "mamba_rms_norm": False,
        **{key: 1.0 for key in MULTIPLIERS if key.endswith("r")},
        "mlp_multipliers": [1.0] * 2,
        "ssm_multipliers": [1.0] * 5,
    }

    @cached_property
    def mamba(self) -> Mamba:
        """The sizes of the recurrence."""
        integer = self.config.integer
        inner = integer("mamba_d_ssm", integer("mamba_expand") * integer("hidden_size"))
        return Mamba.named(self.config, inner, has_norm=bool(self.config.get("mamba_rms_norm")))

    @cached_property
    def multipliers(self) -> Mapping[str, Array]:
        """What a part's rows are multiplied by: one number, or one for each row."""
        embedding, head, key, attention_in, attention_out, ssm_in, ssm_out, mlp, ssm = (
            np.array(self.config.get(name), np.float32).reshape(-1) for name in MULTIPLIERS
        )
        mamba = self.mamba
        written = mamba.n_groups * mamba.state_size
        parts = [mamba.inner, mamba.inner, written, written, mamba.n_heads]
        return {
            "token_embd": embedding,
            "output": head,
            "attn_q": attention_in,
            "attn_k": attention_in * key,
            "attn_v": attention_in,
            "attn_output": attention_out,
            "ssm_in": ssm_in * np.repeat(ssm, parts),
            "ssm_out": ssm_out,
            "ffn_gate": mlp[:1],
            "ffn_down": mlp[1:],
        }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("projectors_bias", False)
        self.config.expect("mamba_proj_bias", False)
        self.config.expect("mamba_d_head", "auto", self.mamba.head_size)
        if self.mamba.has_norm:
            self.config.expect("mamba_norm_before_gate", False)
        infinite = {"__float__": "Infinity"}  # as transformers 5 writes it
        self.config.expect("time_step_limit", [0.0, float("inf")], [0.0, infinite])

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        multipliers = {name: self.config.get(name) for name in MULTIPLIERS}
        return super().metadata() | self.mamba.metadata() | multipliers

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        for target in self._plain():
            scale = self.multipliers.get(target.name.split(".")[-2])
            yield target if scale is None else target.times(np.resize(scale, target.shape[0]))

    def _plain(self) -> Iterator[Target]:
        yield from super().targets()
        for i in range(self.n_layers):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            # llama.cpp's name has no .weight here
            yield self.take(f"{ours}ffn_norm", f"{theirs}pre_ff_layernorm.weight")
            yield from self.mamba.targets(self, ours, f"{theirs}mamba.")
