"""The tensors that a packed matrix is made of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from convert.errors import CheckpointError
from convert.source.tensor import SourceTensor

Tensors = dict[str, SourceTensor]
"""A checkpoint's tensors by name. Methods take parts out and put the matrices in."""

_ACTIVATIONS = (
    "activation_scale",
    "input_scale",
    "input_scale_ub",
    "input_zero_point",
    "input_global_scale",
    "input_g_idx",
    "output_scale",
    "output_zero_point",
)


def ending_with(tensors: Tensors, ending: str) -> Iterator[str]:
    """Yield what comes before an ending, for each tensor whose name has it."""
    yield from [name.removesuffix(ending) for name in tensors if name.endswith(ending)]


def take(tensors: Tensors, name: str, owner: str) -> SourceTensor:
    """Take a part out. Raises CheckpointError if it is missing; ``owner``: a part that is there."""
    if name not in tensors:
        raise CheckpointError(f"the checkpoint has tensor {owner} but not {name}, which belongs to it")
    return tensors.pop(name)


def take_if_any(tensors: Tensors, *names: str) -> list[SourceTensor]:
    """Take parts out that may be missing."""
    return [tensors.pop(name) for name in names if name in tensors]


def take_activations(tensors: Tensors, stem: str) -> list[SourceTensor]:
    """Take out what says how a module's inputs and outputs are rounded, which llama.cpp does not do."""
    return take_if_any(tensors, *(f"{stem}{name}" for name in _ACTIVATIONS))


def even_groups(columns: int, n_groups: int, size: int | None = None) -> NDArray[np.intp]:
    """Return the group of each column, where groups are neighbours; ``size``: where the last is smaller."""
    return np.arange(columns) // (size or -(-columns // max(1, n_groups)))


def checked_groups(index: SourceTensor, columns: int, n_groups: int) -> NDArray[np.intp]:
    """Return the group of each column as a tensor has it (``g_idx``).

    Raises:
        CheckpointError: there is not a group for each column.
    """
    if index.dtype not in ("I32", "I64") or index.shape != (columns,):
        raise CheckpointError(
            f"tensor {index.name} is {index.dtype} {index.shape}; it should have a group for each of "
            f"{columns} columns"
        )
    groups = index.array().astype(np.intp)
    if groups.min(initial=0) < 0 or groups.max(initial=0) >= n_groups:
        raise CheckpointError(f"tensor {index.name} names groups outside of the {n_groups} there are")
    return groups
