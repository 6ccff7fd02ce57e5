"""Granite 4: Granite whose layers are mostly Mamba-2, with experts or without."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Target, Value
from convert.architectures.granite import GraniteMoe
from convert.architectures.mamba import Mamba
from convert.architectures.transformer import ATTENTION, PRE_NORMS

RECURRENT = ("mamba", "linear_attention")


class GraniteHybrid(GraniteMoe):
    """A layer is recurrent or attention, then experts and a shared one. Published models rotate nothing."""

    names = ("GraniteMoeHybridForCausalLM",)
    gguf_name = "granitehybrid"
    layer = PRE_NORMS
    kinds = frozenset((*RECURRENT, "attention", "full_attention"))
    without_lora = ("blk.*.ssm_conv1d.weight",)
    biases: ClassVar[Mapping[str, Collection[str]]] = {"attention_bias": ATTENTION}
    defaults: ClassVar[Mapping[str, Any]] = {
        **GraniteMoe.defaults,
        "shared_intermediate_size": 1024,
        "mamba_n_heads": 128,
        "mamba_n_groups": 1,
        "mamba_d_state": 256,
        "mamba_d_head": 64,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_conv_bias": True,
    }
    aliases: ClassVar[Mapping[str, str]] = {"layers_block_type": "layer_types"}

    @cached_property
    def mamba(self) -> Mamba:
        """The sizes of the recurrent layers."""
        return Mamba.named(self.config, 2 * self.config.integer("hidden_size"))

    @cached_property
    def is_recurrent(self) -> list[bool]:
        """For each layer whether it is recurrent; all are where config.json does not say."""
        return [kind in RECURRENT for kind in self.layer_types(["mamba"] * self.n_layers)]

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.expect_both_kinds(self.is_recurrent)
        self.config.expect("mamba_expand", 2)
        self.config.expect("mamba_proj_bias", False)
        infinite = {"__float__": "Infinity"}  # as transformers 5 writes it
        self.config.expect("time_step_limit", [0.0, float("inf")], [0.0, infinite])

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        values = super().metadata() | self.mamba.metadata() | {
            "attention.head_count_kv": [0 if here else self.n_heads_kv for here in self.is_recurrent],
            "rope.scaling.finetuned": self.config.get("position_embedding_type") == "rope",
        }  # fmt: skip
        if self.n_experts:
            return values
        values["feed_forward_length"] = self.shared_size
        return {key: value for key, value in values.items() if not key.startswith("expert_")}

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from super().targets()
        for i, here in enumerate(self.is_recurrent):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            if here:
                yield from self.mamba.targets(self, ours, f"{theirs}mamba.")
            else:
                yield from self.parts(ATTENTION, ours, theirs)

    def mixture(self, ours: str, theirs: str) -> Iterator[Target]:
        """Yield a layer's experts and the shared one, or that one alone, which then is a plain MLP."""
        if self.n_experts:
            yield from super().mixture(ours, theirs)
        else:
            yield from self.fused_mlp(ours, f"{theirs}shared_mlp.", self.shared_size, "")
