"""Mixtures of experts: a layer's routed experts as three stacks, made one expert at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import gguf
import numpy as np

from convert.architectures.architecture import Architecture, Rows, Target, Value
from convert.errors import CheckpointError
from convert.source.config import Config
from convert.source.packed import GROUP, Q4_0_BYTES
from convert.source.packed_tensor import Int4Tensor
from convert.source.tensor import Array

SIGMOID = 2
"""llama.cpp's number of the sigmoid router (LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID)."""

SOFTMAX = 1
"""llama.cpp's number of the softmax router (LLAMA_EXPERT_GATING_FUNC_TYPE_SOFTMAX)."""

PROJECTIONS = {"ffn_gate_exps": "gate_proj", "ffn_up_exps": "up_proj", "ffn_down_exps": "down_proj"}


def expert_stacks(
    model: Architecture, ours: str, theirs: str, n_experts: int, *, transposed: bool = False
) -> Iterator[Target]:
    """Yield the gate, up and down projections of a layer's experts.

    From one tensor for each expert and projection (transformers 4), or from ``gate_up_proj``, gate over
    up, and ``down_proj`` (transformers 5).

    Args:
        ours: ``blk.3.``
        theirs: ``model.layers.3.mlp.experts.``
        transposed: the fused tensors have inputs first.
    """
    if model.has(fused := f"{theirs}gate_up_proj"):
        half = _experts(model, fused, n_experts)[2 if transposed else 1] // 2
        gate, up = np.arange(half), np.arange(half, 2 * half)
        _experts(model, f"{theirs}down_proj", n_experts)
        yield part(model, f"{ours}ffn_gate_exps.weight", fused, gate, transposed=transposed)
        yield part(model, f"{ours}ffn_up_exps.weight", fused, up, transposed=transposed)
        yield part(model, f"{ours}ffn_down_exps.weight", f"{theirs}down_proj", transposed=transposed)
        return
    for name, projection in PROJECTIONS.items():
        sources = [f"{theirs}{expert}.{projection}.weight" for expert in range(n_experts)]
        yield _kept_in_q4_0(model, model.stack(f"{ours}{name}.weight", sources), sources)


def expert_groups(config: Config, n_experts: int) -> dict[str, Value]:
    """Return the keys of routing to the best groups of experts first; none where every group is among them.

    Raises:
        CheckpointError: the experts cannot be chosen so.
    """
    groups, best = config.integer("n_group", 1), config.integer("topk_group", 1)
    if groups == best:
        return {}
    if best > groups or n_experts % groups or n_experts // groups < 2:
        raise CheckpointError(
            f"config.json: the best {best} (topk_group) of {groups} groups (n_group) of "
            f"{n_experts} experts cannot be chosen by their two best experts"
        )
    return {"expert_group_count": groups, "expert_group_used_count": best}


def part(
    model: Architecture, name: str, source: str, rows: Rows | None = None, *, transposed: bool = False
) -> Target:
    """Return a target that is the same rows of every expert of a source, expert by expert.

    Args:
        source: shape ``(experts, rows, columns)``.
        rows: all of them where None.
        transposed: the source has the shape ``(experts, columns, rows)``.
    """
    tensor = model.tensor(source)
    n_experts, n_rows, n_columns = tensor.shape
    if transposed:
        n_rows, n_columns = n_columns, n_rows
    kept = slice(None) if rows is None else rows

    def pieces() -> Iterator[Array]:
        for expert in range(n_experts):
            array = tensor.at(expert)
            yield (array.T if transposed else array)[kept][None]

    shape = (n_experts, n_rows if rows is None else len(rows), n_columns)
    return Target(name, shape, tensor.sources, pieces, is_matrix=True, rows=rows, is_transposed=transposed)


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


__all__ = ["SIGMOID", "SOFTMAX", "expert_groups", "expert_stacks", "part"]
