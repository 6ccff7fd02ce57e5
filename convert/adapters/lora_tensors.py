"""An adapter's factors as llama.cpp reads them: an A and a B for each changed weight of the GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial

import numpy as np

from convert.adapters.base import EMBEDDING, OUTPUT, Base
from convert.adapters.factors import Float32
from convert.adapters.updates import HEAD, TOKENS, Update, Updates, n_outputs
from convert.errors import UnsupportedError
from convert.gguf.target import Target
from convert.source.tensor import Array

_MOST_NAMED = 6
_ROUNDING = 1e-12
_ONE_OUTPUT = "ffn_gate_inp_shexp.weight"
"""A matrix with one output, which the file stores as a vector."""


def lora_targets(updates: Updates, base: Base, alpha: float) -> list[Target]:
    """Return the tensors of a GGUF adapter.

    Of a weight that several factors change, their ranks are stacked. Rows and columns follow the weight's.
    What llama.cpp's own scale, ``alpha`` / rank, does not say is multiplied into B.

    Raises:
        UnsupportedError: the adapter changes weights that llama.cpp applies no LoRA to; they are named.
    """
    weights: dict[str, _Weight] = {}
    unfit: dict[str, list[str]] = {}
    for source in updates:
        for target in _targets(source, base):
            if _takes_lora(target, base):
                weights.setdefault(target.name, _Weight(target, base, updates, alpha))
            else:
                unfit.setdefault(target.name, []).extend(u.factors.module for u in updates[source])
    if unfit:
        modules = list(dict.fromkeys(module for names in unfit.values() for module in names))
        more = f" and {len(modules) - _MOST_NAMED} more" if len(modules) > _MOST_NAMED else ""
        raise UnsupportedError(
            f"llama.cpp applies no LoRA to {', '.join(sorted(unfit)[:_MOST_NAMED])} of a "
            f"{base.architecture} (the adapter's {', '.join(modules[:_MOST_NAMED])}{more}); --merge "
            "(merge=True) writes base and adapter as one model"
        )
    return [factor for weight in weights.values() if weight.rank for factor in weight.factors()]


def refuse_output(base: Base, updates: Updates) -> None:
    """Refuse what no file for llama.cpp can say: another output matrix where there cannot be one.

    Raises:
        UnsupportedError: the adapter changes only one use of the token embeddings of such a model.
    """
    if base.is_tied and not base.family.has_output and {HEAD, TOKENS} & updates.keys():
        raise UnsupportedError(
            f"the adapter changes the token embeddings or the output matrix ({HEAD}), which are one matrix "
            f"in llama.cpp's {base.architecture}, whatever the file; it can be converted if it is trained "
            "without them"
        )


def _targets(source: str, base: Base) -> list[Target]:
    if source == HEAD:
        return [base.targets.get(OUTPUT) or replace(base.targets[EMBEDDING], name=OUTPUT)]
    if source == TOKENS:
        return [base.targets[EMBEDDING]]
    return base.made_of(base.modules[source])


def _takes_lora(target: Target, base: Base) -> bool:
    is_matrix = len(target.shape) > 1 or target.name.endswith(_ONE_OUTPUT)
    name = OUTPUT if target.name == EMBEDDING else target.name
    plain = any(fnmatchcase(target.name, pattern) for pattern in base.family.without_lora)
    return is_matrix and name.endswith(".weight") and not plain


@dataclass(frozen=True, eq=False)
class _Weight:
    """A weight of the GGUF file, with all updates of it."""

    target: Target
    base: Base
    updates: Updates
    alpha: float

    @cached_property
    def names(self) -> list[str]:
        """The checkpoint's tensors it is made of: one, or one for each expert."""
        if self.target.name in (OUTPUT, EMBEDDING):
            return [HEAD if self.target.name == OUTPUT else TOKENS]
        return self.base.made_from(self.target)

    @cached_property
    def n_outputs(self) -> int:
        """Outputs of each of the tensors that the weight is made of."""
        name = self.names[0]
        return n_outputs(self.base, self.base.modules[name if name in self.base.modules else TOKENS])

    @cached_property
    def experts(self) -> list[int | None]:
        """The experts, or None alone for a plain matrix."""
        return list(range(self.target.shape[0])) if len(self.target.shape) == 3 else [None]

    @cached_property
    def rank(self) -> int:
        """The largest sum of ranks over the experts; the others are filled up with zeros."""
        return max(sum(update.factors.rank for update in self._of(expert)) for expert in self.experts)

    def factors(self) -> Iterator[Target]:
        """Yield the targets of A and B."""
        used = [update for expert in self.experts for update in self._of(expert)]
        sources = tuple(dict.fromkeys(name for update in used for name in update.factors.sources))
        extent = self.target.shape[:1] if len(self.target.shape) == 3 else ()
        rows = self.n_outputs if self.target.rows is None else len(self.target.rows)
        shape_a, shape_b = (*extent, self.rank, self.target.shape[-1]), (*extent, rows, self.rank)
        made = [("lora_a", shape_a, self.a), ("lora_b", shape_b, self.b)]
        if self.target.name == EMBEDDING:  # of which llama.cpp looks up rows of the first factor
            made = [("lora_a", shape_b, self.b), ("lora_b", shape_a[::-1], lambda expert: self.a(expert).T)]
        for name, shape, make in made:
            pieces = partial(self._pieces, make)
            yield Target(f"{self.target.name}.{name}", shape, sources, pieces, is_matrix=True)

    def a(self, expert: int | None) -> Float32:
        """Return A: ``(rank, in)``."""
        made = np.zeros((self.rank, self.target.shape[-1]), np.float32)
        start = 0
        for update in self._of(expert):
            made[start : start + update.factors.rank] = update.a(expert)
            start += update.factors.rank
        return made if self.target.columns is None else made[:, self.target.columns]

    def b(self, expert: int | None) -> Float32:
        """Return B: ``(out, rank)``."""
        made = np.zeros((self.n_outputs, self.rank), np.float32)
        start = 0
        for update in self._of(expert):
            scale = update.factors.scale * self.rank / self.alpha  # llama.cpp multiplies by alpha / rank
            factor = update.b(expert)
            end = start + update.factors.rank
            made[update.places(self.n_outputs), start:end] = (
                factor if abs(scale - 1) < _ROUNDING else factor * np.float32(scale)
            )
            start = end
        made = made if self.target.rows is None else made[self.target.rows]
        return made if self.target.scale is None else made * self.target.scale[:, None]

    def _pieces(self, make: Callable[[int | None], Float32]) -> Iterator[Array]:
        for expert in self.experts:
            yield make(expert) if expert is None else make(expert)[None]

    def _of(self, expert: int | None) -> list[Update]:
        """Return the updates of one expert's part of the weight."""
        name = self.names[expert] if expert is not None and len(self.names) > 1 else self.names[0]
        return [update for update in self.updates.get(name, []) if self._is_met(update, expert)]

    def _is_met(self, update: Update, expert: int | None) -> bool:
        rows = self.target.rows
        met = rows is None or bool(np.isin(update.places(self.n_outputs), rows).any())
        return met and (len(self.names) > 1 or update.concerns(expert))
