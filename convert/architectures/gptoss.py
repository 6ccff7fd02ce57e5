"""gpt-oss: a sliding window in every other layer, attention sinks, experts in MXFP4."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

import gguf
import numpy as np

from convert.architectures.architecture import Rows, Target, Value
from convert.architectures.rotary import rope_metadata
from convert.architectures.transformer import ATTENTION, Transformer
from convert.errors import CheckpointError, ConversionWarning
from convert.source.packed_tensor import Mxfp4Tensor
from convert.source.tensor import Array, SourceTensor

NORMS = {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"}

_ROUNDED_RAMP = (
    "config.json says truncate: false for YaRN; llama.cpp rounds the bounds of its ramp anyway, so a "
    "few rotary frequencies differ a little from the source's"
)

WINDOWED, FULL = "sliding_attention", "full_attention"


class GptOss(Transformer):
    """Every projection has a bias, every head a sink; the experts' gate and up rows alternate.

    The published models set YaRN's ``truncate: false``: the ramp between slowed and unchanged waves has
    fractional bounds. llama.cpp rounds them for every model, so a few of the frequencies differ. That is
    the one thing about these checkpoints that the file cannot say.
    """

    names = ("GptOssForCausalLM",)
    gguf_name = "gpt-oss"
    needs_output = True
    layer = NORMS | ATTENTION
    biases: ClassVar[Mapping[str, Collection[str]]] = {"attention_bias": ATTENTION}
    interleaves_experts = True
    rope_kinds = ("yarn",)
    usual_rope: ClassVar[Mapping[str, Any]] = {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": 36,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "sliding_window": 128,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
    }
    aliases: ClassVar[Mapping[str, str]] = {"num_experts": "num_local_experts"}

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("attention_bias", True)
        self.config.expect("swiglu_limit", 7.0)
        self.config.expect("swiglu_alpha", 1.702)

    def has_bias(self, name: str) -> bool:
        """Whether a part of a layer has a bias."""
        return name in ATTENTION

    def rope_values(self, length: int) -> dict[str, Value]:
        """Return the keys of the rotation."""
        if self.rope.scaling.get("truncate", True) is False:
            warnings.warn(_ROUNDED_RAMP, ConversionWarning, stacklevel=2)
        return rope_metadata(self.rope, self.n_rotated, length, truncates=True)

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        return super().metadata() | {
            "expert_feed_forward_length": self.config.integer("intermediate_size"),
            "expert_count": self.config.integer("num_local_experts"),
            "expert_used_count": self.config.integer("num_experts_per_tok"),
            "attention.sliding_window": self.config.integer("sliding_window"),
            "attention.sliding_window_pattern": self._windowed(),
        }

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from super().targets()
        for i in range(self.n_layers):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            yield self.take(f"{ours}attn_sinks.weight", f"{theirs}self_attn.sinks")
            yield self.take(f"{ours}ffn_gate_inp.weight", f"{theirs}mlp.router.weight", is_matrix=False)
            yield self.take(f"{ours}ffn_gate_inp.bias", f"{theirs}mlp.router.bias")
            yield from self._experts(ours, f"{theirs}mlp.experts.")

    def _experts(self, ours: str, theirs: str) -> Iterator[Target]:
        n_experts, width = self.config.integer("num_local_experts"), self.config.integer("hidden_size")
        inner = self.config.integer("intermediate_size")
        gate_and_up, down = np.arange(2 * inner), np.arange(width)
        for name, source, n_inputs, outputs, rows in (
            ("ffn_gate_exps", "gate_up_proj", width, gate_and_up, gate_and_up[::2]),
            ("ffn_up_exps", "gate_up_proj", width, gate_and_up, gate_and_up[1::2]),
            ("ffn_down_exps", "down_proj", inner, down, down),
        ):
            self.expect_shape(f"{theirs}{source}", (n_experts, n_inputs, len(outputs)))
            self.expect_shape(f"{theirs}{source}_bias", (n_experts, len(outputs)))
            yield self._weight(f"{ours}{name}.weight", self.tensor(f"{theirs}{source}"), rows)
            yield self._bias(f"{ours}{name}.bias", self.tensor(f"{theirs}{source}_bias"), rows)

    def _weight(self, name: str, tensor: SourceTensor, rows: Rows) -> Target:
        """Return experts, whose sources have inputs first; packed ones are repacked without loss."""
        n_experts, n_inputs, _ = tensor.shape

        def plain() -> Iterator[Array]:
            for expert in range(n_experts):
                yield tensor.at(expert).T[rows][None]

        def packed() -> Iterator[Array]:
            assert isinstance(tensor, Mxfp4Tensor)
            for expert in range(n_experts):
                yield tensor.packed(expert, rows)

        is_packed = isinstance(tensor, Mxfp4Tensor)
        return Target(
            name,
            (n_experts, len(rows), n_inputs),
            tensor.sources,
            packed if is_packed else plain,
            is_matrix=True,
            raw_type=gguf.GGMLQuantizationType.MXFP4 if is_packed else None,
            rows=rows,
            is_transposed=True,
        )

    def _bias(self, name: str, bias: SourceTensor, rows: Rows) -> Target:
        shape = (bias.shape[0], len(rows))
        return self.compute(name, shape, bias.sources, lambda: bias.array()[:, rows], is_matrix=False)

    def _windowed(self) -> list[bool]:
        """Return for each layer whether its attention has a sliding window; by default every other one."""
        types = self.config.get("layer_types") or [
            FULL if i % 2 else WINDOWED for i in range(self.n_layers)
        ]
        if len(types) != self.n_layers or not set(types) <= {WINDOWED, FULL}:
            raise CheckpointError(
                f"config.json: layer_types must say {WINDOWED} or {FULL} for each of {self.n_layers} layers"
            )
        return [kind == WINDOWED for kind in types]
