"""Merging: weights of a checkpoint with an adapter's updates added in float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.adapters.base import Base
from convert.adapters.factors import Float32
from convert.adapters.updates import HEAD, TOKENS, Update, Updates, is_transposed, n_outputs
from convert.architectures import Architecture
from convert.architectures.decoder import DecoderOnly
from convert.gguf.encoding import as_float32
from convert.source.tensor import Array, SourceTensor

_CHUNK = 1 << 24  # numbers that are merged at once


@dataclass(frozen=True, eq=False)
class MergedTensor(SourceTensor):
    """A weight plus scale * B A. Its numbers are float32; those of a stack come one expert at a time."""

    original: SourceTensor
    updates: tuple[Update, ...]
    is_transposed: bool
    n_outputs: int

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors it is made of, the adapter's included."""
        added = dict.fromkeys(name for update in self.updates for name in update.factors.sources)
        return (*self.original.sources, *added)

    def array(self) -> Array:
        """Return all its numbers."""
        if len(self.shape) == 3:
            return np.stack([self.at(expert) for expert in range(self.shape[0])])
        return np.concatenate(list(self.pieces()))

    def at(self, index: int) -> Array:
        """Return one expert."""
        merged = as_float32(np.ascontiguousarray(self.original.at(index))).copy()
        self._add(merged.T if self.is_transposed else merged, 0, index)
        return merged

    def pieces(self) -> Iterator[Array]:
        """Yield its numbers, some rows at a time; of a stack, an expert at a time."""
        if len(self.shape) == 3:
            for expert in range(self.shape[0]):
                yield self.at(expert)[None]
            return
        original = self.original.array()
        step = len(original) if self.is_transposed else max(1, _CHUNK // self.shape[-1])
        for start in range(0, len(original), step):
            merged = as_float32(np.ascontiguousarray(original[start : start + step])).copy()
            self._add(merged.T if self.is_transposed else merged, start, None)
            yield merged

    def _add(self, weight: Float32, first: int, expert: int | None) -> None:
        """Add to the outputs from ``first`` on; ``weight`` has outputs first."""
        for update in self.updates:
            if not update.concerns(expert):
                continue
            places = update.places(self.n_outputs)
            here = (places >= first) & (places < first + len(weight))
            if here.any():
                factor = update.b(expert)[here] * np.float32(update.factors.scale)
                weight[places[here] - first] += factor @ update.a(expert)


def merged_tensors(updates: Updates, base: Base) -> dict[str, SourceTensor]:
    """Return the changed tensors, under their names in the checkpoint.

    An output matrix that the base has tied to the token embeddings becomes a tensor of its own.
    """
    merged: dict[str, SourceTensor] = {}
    names = {id(tensor): name for name, tensor in base.family.sources.items()}
    for plain, of_tensor in updates.items():
        tensor = base.modules.get(plain)
        name = _head_name(base) if tensor is None else names[id(tensor)]
        tensor = base.modules[TOKENS] if tensor is None else tensor
        merged[name] = MergedTensor(
            **_fields(tensor) | {"name": name},
            original=tensor,
            updates=tuple(of_tensor),
            is_transposed=is_transposed(base, tensor),
            n_outputs=n_outputs(base, tensor),
        )
    return merged


def unties(updates: Updates, base: Base) -> bool:
    """Whether the adapter separates an output matrix and token embeddings that the base shares."""
    return HEAD not in base.modules and bool({HEAD, TOKENS} & updates.keys())


def separate_output(base: Base, architecture: Architecture, merged: Mapping[str, SourceTensor]) -> None:
    """Add an output matrix to a tied model: the adapted one, or a copy of the embeddings."""
    name = _head_name(base)
    head = merged.get(name) or base.modules[TOKENS]
    architecture.change({name: head})
    architecture.ignored = (*architecture.ignored, name)  # a copy of the embeddings, if it is in the file
    architecture.config = architecture.config.replaced(tie_word_embeddings=False)


def _head_name(base: Base) -> str:
    assert isinstance(base.family, DecoderOnly)
    return base.family.heads[0]


def _fields(tensor: SourceTensor) -> dict[str, Any]:
    return {field: getattr(tensor, field) for field in ("name", "shape", "dtype", "file", "offset")}


__all__ = ["MergedTensor", "merged_tensors", "separate_output", "unties"]
