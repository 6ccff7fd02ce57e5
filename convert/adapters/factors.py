"""The two factors of a LoRA: what is added to a weight of shape (out, in) is scale * B A."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from convert.gguf.encoding import as_float32
from convert.source.tensor import Array, SourceTensor

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Factors:
    """One module's factors. Nothing is read until they are asked for.

    Attributes:
        module: what the adapter calls the module, without PEFT's ``base_layer``.
        first: the tensor that holds A, shape ``(rank, in)``, or for experts ``(E or 1, rank, in)``.
        second: the one that holds B, ``(out, rank)``, or ``(E or 1, out, rank)``.
        scale: of the product; of a stack, once its parameter is known (``of_parameter``).
        is_swapped: A is ``(rank, out)`` and B is ``(in, rank)``. PEFT keeps those of an embedding so, where
            out are the tokens, and those of a parameter with inputs first.
        is_stack: PEFT keeps those of E experts in one matrix: A has the rows of expert 0, then those of
            expert 1; B has a column of every expert, then a second one of every expert.
        is_parameter: PEFT trained the weight as a parameter (``target_parameters``), not as a module's.
        stacked: E, once the parameter is known.
    """

    module: str
    first: SourceTensor
    second: SourceTensor
    scale: float
    is_swapped: bool = False
    is_stack: bool = False
    is_parameter: bool = False
    stacked: int | None = None

    def of_parameter(self, n_experts: int, scale: float) -> Factors:
        """Return the factors of a stack, once its parameter and the number of experts are known."""
        return replace(self, stacked=n_experts, scale=scale)

    @property
    def sources(self) -> tuple[str, str]:
        """The names of its tensors."""
        return self.first.name, self.second.name

    @property
    def n_experts(self) -> int | None:
        """The number of experts; None for a plain matrix."""
        if self.stacked is not None:
            return self.stacked
        return max(self.first.shape[0], self.second.shape[0]) if len(self.first.shape) == 3 else None

    @property
    def rank(self) -> int:
        """The rank: rows of A and columns of B, of one expert."""
        rows = self.first.shape[-2]
        return rows // self.stacked if self.stacked else rows

    @property
    def n_in(self) -> int:
        """Inputs of the weight: its columns."""
        return self.second.shape[0] if self.is_swapped else self.first.shape[-1]

    @property
    def n_out(self) -> int:
        """Outputs of the weight: its rows."""
        return self.first.shape[1] if self.is_swapped else self.second.shape[-2]

    def a(self, expert: int | None = None) -> Float32:
        """Return A of an expert, or of a plain matrix: ``(rank, in)``."""
        if self.is_swapped:
            return _float32(self.second.array().T)
        array = self.first.array()
        if self.stacked is not None and expert is not None:
            return _float32(array.reshape(self.stacked, self.rank, -1)[expert])
        return _float32(_of_expert(array, expert))

    def b(self, expert: int | None = None) -> Float32:
        """Return B of an expert, or of a plain matrix: ``(out, rank)``."""
        if self.is_swapped:
            return _float32(self.first.array().T)
        array = self.second.array()
        if self.stacked is not None and expert is not None:
            return _float32(array.reshape(len(array), self.rank, self.stacked)[:, :, expert])
        return _float32(_of_expert(array, expert))


def _of_expert(array: Array, expert: int | None) -> Array:
    if expert is None:
        return array
    of_expert: Array = array[expert if len(array) > 1 else 0]
    return of_expert


def _float32(array: Array) -> Float32:
    return as_float32(np.ascontiguousarray(array))
