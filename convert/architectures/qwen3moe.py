"""Qwen3 with a mixture of experts in every layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from convert.architectures.architecture import Target, Value
from convert.architectures.experts import expert_stacks
from convert.architectures.transformer import ATTENTION, HEAD_NORMS, PRE_NORMS, Transformer
from convert.source.config import Config
from convert.source.tensor import SourceTensor


class Qwen3Moe(Transformer):
    """Qwen3's attention; softmax routing, with the chosen experts' weights normalised."""

    names = ("Qwen3MoeForCausalLM",)
    gguf_name = "qwen3moe"
    layer = PRE_NORMS | ATTENTION | HEAD_NORMS
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "sliding_window": 4096,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "num_experts": 128,
        "norm_topk_prob": False,
    }
    aliases: ClassVar[Mapping[str, str]] = {"num_local_experts": "num_experts"}

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        super().__init__(config, tensors)
        self.n_experts = self.config.integer("num_experts")

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.config.expect("norm_topk_prob", True, missing=False)
        self.config.expect("decoder_sparse_step", 1)
        self.config.expect("mlp_only_layers", [])

    def window(self) -> int | None:
        """Return the sliding window of all layers, which published models disable."""
        size = self.config.get("sliding_window")
        return size if self.config.get("use_sliding_window", False) else None

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        return super().metadata() | {
            "expert_count": self.n_experts,
            "expert_used_count": self.config.integer("num_experts_per_tok"),
            "expert_feed_forward_length": self.config.integer("moe_intermediate_size"),
        }

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from super().targets()
        for i in range(self.n_layers):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}.mlp."
            yield self.take(f"{ours}ffn_gate_inp.weight", f"{theirs}gate.weight", is_matrix=False)
            yield from expert_stacks(self, ours, f"{theirs}experts.", self.n_experts)
