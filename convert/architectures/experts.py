"""Mixtures of experts: a layer's routed experts as three stacks, made one expert at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import gguf
import numpy as np

from convert.architectures.architecture import Architecture, Rows, Target
from convert.errors import CheckpointError
from convert.source.packed import GROUP, Q4_0_BYTES
from convert.source.packed_tensor import Int4Tensor
from convert.source.tensor import Array

PROJECTIONS = {"ffn_gate_exps": "gate_proj", "ffn_up_exps": "up_proj", "ffn_down_exps": "down_proj"}


def expert_stacks(model: Architecture, ours: str, theirs: str, n_experts: int) -> Iterator[Target]:
    """Yield the gate, up and down projections of a layer's experts.

    From one tensor for each expert and projection (transformers 4), or from ``gate_up_proj``, gate over
    up, and ``down_proj`` (transformers 5).

    Args:
        ours: ``blk.3.``
        theirs: ``model.layers.3.mlp.experts.``
    """
    if model.has(f"{theirs}gate_up_proj"):
        half = _experts(model, f"{theirs}gate_up_proj", n_experts)[1] // 2
        yield part(model, f"{ours}ffn_gate_exps.weight", f"{theirs}gate_up_proj", np.arange(half))
        yield part(model, f"{ours}ffn_up_exps.weight", f"{theirs}gate_up_proj", np.arange(half, 2 * half))
        _experts(model, f"{theirs}down_proj", n_experts)
        yield part(model, f"{ours}ffn_down_exps.weight", f"{theirs}down_proj")
        return
    for name, projection in PROJECTIONS.items():
        sources = [f"{theirs}{expert}.{projection}.weight" for expert in range(n_experts)]
        yield _kept_in_q4_0(model, model.stack(f"{ours}{name}.weight", sources), sources)


def part(model: Architecture, name: str, source: str, rows: Rows | None = None) -> Target:
    """Return a target that is the same rows of every expert of a source, expert by expert.

    Args:
        source: shape ``(experts, rows, columns)``.
        rows: all of them where None.
    """
    tensor = model.tensor(source)
    n_rows = tensor.shape[1] if rows is None else len(rows)
    kept = slice(None) if rows is None else rows

    def pieces() -> Iterator[Array]:
        for expert in range(tensor.shape[0]):
            yield tensor.at(expert)[kept][None]

    shape = (tensor.shape[0], n_rows, *tensor.shape[2:])
    return Target(name, shape, tensor.sources, pieces, is_matrix=True, rows=rows)


def _experts(model: Architecture, source: str, n_experts: int) -> tuple[int, ...]:
    shape = model.tensor(source).shape
    if len(shape) != 3 or shape[0] != n_experts:
        raise CheckpointError(
            f"tensor {source} has the shape {shape}; config.json says {n_experts} experts"
        )
    return shape


def _kept_in_q4_0(model: Architecture, stack: Target, sources: list[str]) -> Target:
    """Return the stack in Q4_0 if that holds packed INT4 without loss, else unchanged."""
    experts = [tensor for tensor in map(model.tensor, sources) if isinstance(tensor, Int4Tensor)]
    if len(experts) < len(sources) or not all(expert.fits_q4_0() for expert in experts):
        return stack
    n_bytes = stack.shape[2] // GROUP * Q4_0_BYTES

    def pieces() -> Iterator[Array]:
        for expert in experts:
            yield expert.q4_0().reshape(1, -1, n_bytes)

    return replace(stack, pieces=pieces, raw_type=gguf.GGMLQuantizationType.Q4_0)


__all__ = ["expert_stacks", "part"]
