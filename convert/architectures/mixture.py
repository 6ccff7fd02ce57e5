"""The plain decoder with experts in place of the MLP, in every layer or in all but the first ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import ClassVar

from convert.architectures.architecture import Target, Value
from convert.architectures.experts import expert_stacks
from convert.architectures.transformer import (
    ATTENTION,
    GATED_MLP,
    HEAD_NORMS,
    PRE_NORMS,
    Transformer,
)

NUMBERED = {
    r"(\.experts\.\d+)\.w1\.": r"\1.gate_proj.",
    r"(\.experts\.\d+)\.w2\.": r"\1.down_proj.",
    r"(\.experts\.\d+)\.w3\.": r"\1.up_proj.",
}
"""What Mixtral and others call the projections, for ``renamed``."""


def shared_expert(module: str) -> dict[str, str]:
    """Return the entries of a layer's table for a shared expert: ``mlp.shared_expert`` is its module."""
    return {f"{name}_shexp": source.replace("mlp", module, 1) for name, source in GATED_MLP.items()}


class Mixture(Transformer):
    """A decoder whose MLPs are experts, chosen by a router. A family overrides class variables."""

    layer: ClassVar[Mapping[str, str]] = PRE_NORMS | ATTENTION | HEAD_NORMS
    """A layer's tensors without those of its MLP or experts."""

    mlp: ClassVar[Mapping[str, str]] = GATED_MLP
    """The tensors of an MLP, in the layers that have one."""

    router: ClassVar[str] = "mlp.gate"
    """The name of the router in a layer, without ``.weight``."""

    experts: ClassVar[str] = "mlp.experts."
    """The name of the routed experts in a layer."""

    shared: ClassVar[Mapping[str, str]] = {}
    """The tensors of the expert that every token goes through, as in ``layer``; see ``shared_expert``."""

    gate: ClassVar[str | None] = None
    """The name of the shared expert's gate, one number a token, if there is one."""

    correction: ClassVar[str | None] = None
    """The name of what is added to the router's scores for the choice alone, if anything is."""

    inputs_first: bool = False
    """Whether the experts' fused tensors have inputs first."""

    sizes: ClassVar[tuple[str, str, str]] = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
    """The settings of how many experts there are, how many a token uses, and how wide one is."""

    @cached_property
    def n_experts(self) -> int:
        """The number of routed experts."""
        return self.config.integer(self.sizes[0])

    @cached_property
    def expert_size(self) -> int:
        """Numbers in the middle of a routed expert."""
        return self.config.integer(self.sizes[2])

    @cached_property
    def shared_size(self) -> int:
        """Numbers in the middle of the shared expert; 0 where there is none."""
        return self.config.integer("shared_expert_intermediate_size", 0) if self.shared else 0

    @cached_property
    def n_dense(self) -> int:
        """How many layers have an MLP before those with experts."""
        return 0

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        values = super().metadata() | {
            "expert_count": self.n_experts,
            "expert_used_count": self.config.integer(self.sizes[1]),
            "expert_feed_forward_length": self.expert_size,
        }
        return values | (
            {"expert_shared_feed_forward_length": self.shared_size} if self.shared_size else {}
        )

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each part of a layer, the shared expert's included."""
        width, inner = self.config.integer("hidden_size"), self.shared_size
        return {
            **super().shapes,
            "ffn_gate_shexp": (inner, width),
            "ffn_up_shexp": (inner, width),
            "ffn_down_shexp": (width, inner),
        }

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from super().targets()
        for i in range(self.n_layers):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            if self.has_experts(i):
                yield from self.mixture(ours, theirs)
            else:
                yield from self.parts(self.mlp, ours, theirs)

    def has_experts(self, layer: int) -> bool:
        """Whether a layer has experts, not an MLP."""
        return layer >= self.n_dense

    def mixture(self, ours: str, theirs: str) -> Iterator[Target]:
        """Yield a layer's experts and router; the router stays float32."""
        yield self.take(f"{ours}ffn_gate_inp.weight", f"{theirs}{self.router}.weight", is_matrix=False)
        if self.correction is not None:
            yield self.vector(f"{ours}exp_probs_b.bias", f"{theirs}{self.correction}", self.n_experts)
        yield from expert_stacks(
            self, ours, f"{theirs}{self.experts}", self.n_experts, transposed=self.inputs_first
        )
        yield from self.parts(self.shared if self.shared_size else {}, ours, theirs)
        if self.gate is not None:
            width = self.config.integer("hidden_size")
            self.expect_shape(f"{theirs}{self.gate}.weight", (1, width))
            yield self.vector(f"{ours}ffn_gate_inp_shexp.weight", f"{theirs}{self.gate}.weight", width)
