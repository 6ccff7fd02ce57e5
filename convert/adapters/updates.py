"""Which weights of a model an adapter changes, and by which factors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from convert.adapters.base import EMBEDDING, Base, plain
from convert.adapters.checkpoint import AdapterCheckpoint
from convert.adapters.factors import Factors, Float32
from convert.adapters.settings import Settings
from convert.errors import CheckpointError
from convert.source.tensor import SourceTensor

HEAD, TOKENS = "lm_head", "embed_tokens"

_TINKER = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
_TINKER_UNGATED = {"w1": "up_proj", "w2": "down_proj"}
_EXPERTS = re.compile(r"(?P<all>.+\.experts\.)(?:(?P<expert>\d+)\.)?(?P<projection>\w+)")
_MOST_NAMED = 6


def _all() -> slice:
    return slice(None)


@dataclass(frozen=True, eq=False)
class Update:
    """An update of a weight: scale * B A of some factors is added.

    Attributes:
        factors: B and A.
        of: the expert whose factors these are. None: a plain matrix, or of each expert its own.
        to: the expert of a stacked weight that changes. None: a plain matrix, or every expert.
        outputs: the rows of B that count.
        rows: the outputs of the weight that change, as many.
    """

    factors: Factors
    of: int | None = None
    to: int | None = None
    outputs: slice = field(default_factory=_all)
    rows: slice = field(default_factory=_all)

    def concerns(self, expert: int | None) -> bool:
        """Whether an expert's weight changes; None for a plain matrix."""
        return self.to is None or self.to == expert

    def a(self, expert: int | None) -> Float32:
        """Return A for a weight: ``(rank, in)``."""
        return self.factors.a(self._expert(expert))

    def b(self, expert: int | None) -> Float32:
        """Return B for a weight, less the rows that do not count: ``(rows, rank)``."""
        return self.factors.b(self._expert(expert))[self.outputs]

    def places(self, n_outputs: int) -> NDArray[np.intp]:
        """Return which of a weight's outputs change."""
        return np.arange(n_outputs)[self.rows]

    def _expert(self, expert: int | None) -> int | None:
        if self.of is not None:
            return self.of
        return None if self.factors.n_experts is None else expert


Updates = Mapping[str, list[Update]]
"""By the plain names of a checkpoint's tensors (``base.plain``)."""


def find_updates(adapter: AdapterCheckpoint, base: Base) -> Updates:
    """Return what an adapter changes in a model.

    Raises:
        CheckpointError: there is a module in the adapter that the model has not, or one of another shape.
    """
    updates: dict[str, list[Update]] = {}
    unknown = []
    for factors in adapter.factors:
        found = list(_Finder(base, factors, adapter.settings).find())
        if not found:
            unknown.append(factors.module)
        for name, update in found:
            updates.setdefault(name, []).append(update)
    if unknown:
        more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        raise CheckpointError(
            f"{adapter.directory} changes modules that {base.path} ({base.architecture}) does not have: "
            f"{', '.join(unknown[:_MOST_NAMED])}{more}; it is for another model, or for parts that are not "
            "converted"
        )
    for module, shape in adapter.copies.items():
        own = base.modules.get(TOKENS if plain(module) == HEAD and base.is_tied else plain(module))
        if own is None or own.shape != shape:
            raise CheckpointError(
                f"{adapter.directory} has a weight of its own for {module}, of the shape {shape}; "
                f"{base.path} has {own.shape if own else 'none'}, and whole modules are not taken over"
            )
    if adapter.settings.ties and TOKENS in updates and HEAD not in updates and _is_tied(base):
        updates[HEAD] = updates[TOKENS]
    return updates


def n_outputs(base: Base, tensor: SourceTensor) -> int:
    """Return the outputs of a weight of the checkpoint."""
    return _features(base, tensor)[1]


def is_transposed(base: Base, tensor: SourceTensor) -> bool:
    """Whether a weight of the checkpoint has its inputs first."""
    return any(target.is_transposed for target in base.made_of(tensor))


def _split(name: str) -> tuple[str, str]:
    all, _, projection = name.rpartition(".")
    return f"{all}.", projection


def _is_tied(base: Base) -> bool:
    return HEAD not in base.modules


def _features(base: Base, tensor: SourceTensor) -> tuple[int, int]:
    """Return a weight's inputs and outputs."""
    *_, rows, columns = tensor.shape
    return (rows, columns) if is_transposed(base, tensor) else (columns, rows)


@dataclass(frozen=True)
class _Finder:
    """Finds the weights that one module's factors change."""

    base: Base
    factors: Factors
    settings: Settings

    def find(self) -> Iterator[tuple[str, Update]]:
        name = plain(self.factors.module)
        if self.factors.is_stack:
            yield from self._stack(name)
            return
        for tried in dict.fromkeys((name, name.replace(".attn.", ".self_attn."))):
            found = list(self._plain(tried) or self._fused(tried) or self._experts(tried))
            if found:
                yield from found
                return

    def _plain(self, name: str) -> list[tuple[str, Update]]:
        source = TOKENS if name == HEAD and HEAD not in self.base.modules else name
        tensor = self.base.modules.get(source)
        if tensor is None or (len(tensor.shape) == 3 and self.factors.n_experts is None):
            return []
        if len(tensor.shape) == 3:
            return [(name, self._checked(tensor, Update(self.factors), tensor.shape[0]))]
        if self.factors.is_parameter and is_transposed(self.base, tensor):
            return replace(self, factors=replace(self.factors, is_parameter=False, is_swapped=True))._plain(
                name
            )
        return [(name, self._checked(tensor, Update(self.factors)))]

    def _fused(self, name: str) -> list[tuple[str, Update]]:
        for ending, (whole, first) in self.base.family.fused.items():
            source = name.removesuffix(ending) + whole
            if name.endswith(f".{ending}") and source in self.base.modules:
                rows = slice(first, first + self.factors.n_out)
                return [(source, self._checked(self.base.modules[source], Update(self.factors, rows=rows)))]
        return []

    # -- experts ----------------------------------------------------------------------------------

    def _experts(self, name: str) -> Iterator[tuple[str, Update]]:
        match = _EXPERTS.fullmatch(name)
        if match is not None:
            expert = None if match["expert"] is None else int(match["expert"])
            if (expert is None) == (self.factors.n_experts is not None):
                tinkers = _TINKER if self._is_gated(match["all"]) else _TINKER_UNGATED
                projection = tinkers.get(match["projection"], match["projection"])
                yield from self._projection(match["all"], projection, expert)

    def _stack(self, name: str) -> Iterator[tuple[str, Update]]:
        """Yield what a parameter of all experts changes; PEFT saves its factors under the module."""
        all, projection = (f"{name}.", None) if name.endswith(".experts") else _split(name)
        projection = projection or self._projection_by_shape(all)
        if projection is None:
            return
        known = self.factors.of_parameter(*self._of_stack(all, projection))
        yield from replace(self, factors=known)._projection(all, projection, None)

    def _of_stack(self, all: str, projection: str) -> tuple[int, float]:
        """Return the number of experts and the scale. Patterns match module and parameter, as in PEFT."""
        module = self.factors.module.removesuffix(f".{projection}")
        parameter, rows = f"{module}.{projection}", self.factors.first.shape[0]
        n_experts, rank = self._n_experts(all), self.settings.rank_of(parameter)
        if rows != n_experts * rank:
            raise CheckpointError(
                f"{self.factors.first.name} has {rows} rows for the {n_experts} experts of "
                f"{self.base.path}; {self.settings.where} says that the rank of {parameter} is {rank}"
            )
        return n_experts, self.settings.scale_of(parameter)

    def _n_experts(self, all: str) -> int:
        stacked = self.base.modules.get(f"{all}down_proj")
        return stacked.shape[0] if stacked else self._count(all, "down_proj")

    def _projection(self, all: str, projection: str, expert: int | None) -> Iterator[tuple[str, Update]]:
        """Yield what changes in one projection, of one expert or of all."""
        modules = self.base.modules
        if projection == "gate_up_proj" and f"{all}gate_up_proj" not in modules:
            half = self.factors.n_out // 2
            for name, outputs in (("gate_proj", slice(half)), ("up_proj", slice(half, None))):
                yield from self._one_by_one(f"{all}", name, expert, outputs)
        elif f"{all}0.{projection}" in modules:
            yield from self._one_by_one(all, projection, expert, _all())
        elif stacked := modules.get(f"{all}{projection}"):
            yield f"{all}{projection}", self._stacked(stacked, expert, _all())
        elif projection in ("gate_proj", "up_proj") and (stacked := modules.get(f"{all}gate_up_proj")):
            half, is_up = _features(self.base, stacked)[1] // 2, projection == "up_proj"
            together = slice(half, 2 * half) if is_up else slice(half)
            in_turn = slice(int(is_up), None, 2)
            rows = in_turn if self.base.family.interleaves_experts else together
            yield f"{all}gate_up_proj", self._stacked(stacked, expert, rows)

    def _one_by_one(
        self, all: str, projection: str, expert: int | None, outputs: slice
    ) -> Iterator[tuple[str, Update]]:
        n_experts = self._count(all, projection)
        for number in range(n_experts) if expert is None else [expert]:
            tensor = self.base.modules.get(f"{all}{number}.{projection}")
            if tensor is None:
                return
            update = Update(self.factors, of=None if expert is not None else number, outputs=outputs)
            yield (
                f"{all}{number}.{projection}",
                self._checked(tensor, update, None if expert is not None else n_experts),
            )

    def _stacked(self, tensor: SourceTensor, expert: int | None, rows: slice) -> Update:
        update = Update(self.factors, to=expert, rows=rows)
        if expert is not None and expert >= tensor.shape[0]:
            raise self._wrong(tensor)
        return self._checked(tensor, update, None if expert is not None else tensor.shape[0])

    def _is_gated(self, all: str) -> bool:
        return f"{all}gate_up_proj" in self.base.modules or f"{all}0.gate_proj" in self.base.modules

    def _count(self, all: str, projection: str) -> int:
        number = 0
        while f"{all}{number}.{projection}" in self.base.modules:
            number += 1
        return number

    def _projection_by_shape(self, all: str) -> str | None:
        """Find by its shape a parameter of PEFT's ``target_parameters``; its name is not saved."""
        down = self.base.modules.get(f"{all}down_proj") or self.base.modules.get(f"{all}0.down_proj")
        if down is None:
            return None
        inner, width = _features(self.base, down)
        first = 2 * inner if self._is_gated(all) else inner
        shapes = {
            "down_proj": (inner, width),
            "gate_up_proj" if first != inner else "up_proj": (width, first),
        }
        fitting = [n for n, shape in shapes.items() if shape == (self.factors.n_in, self.factors.n_out)]
        if len(fitting) != 1:
            raise self._wrong(down)
        return fitting[0]

    # -- shapes -----------------------------------------------------------------------------------

    def _checked(self, tensor: SourceTensor, update: Update, n_experts: int | None = None) -> Update:
        """Return the update if it fits a weight. Raises CheckpointError if not."""
        n_in, n_out = _features(self.base, tensor)
        given = len(range(self.factors.n_out)[update.outputs])
        if (
            self.factors.n_in != n_in
            or given != len(range(n_out)[update.rows])
            or self.factors.n_experts != n_experts
        ):
            raise self._wrong(tensor)
        return update

    def _wrong(self, tensor: SourceTensor) -> CheckpointError:
        shapes = f"A {self.factors.first.shape} and B {self.factors.second.shape}"
        return CheckpointError(
            f"the factors of {self.factors.module}, {shapes}, do not fit {tensor.name} of the shape "
            f"{tensor.shape} in {self.base.path}; the adapter is for another model"
        )


__all__ = ["EMBEDDING", "HEAD", "TOKENS", "Update", "Updates", "find_updates", "is_transposed", "n_outputs"]
