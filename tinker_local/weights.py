"""Weights: the files a client computes with, a model and perhaps an adapter on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.errors import ConversionError
from convert.files.workplace import sweep
from convert.gguf.file_types import split_type
from tinker_local import checks
from tinker_local.engine.engine import Engine
from tinker_local.engine.loop import OnStep
from tinker_local.engine.sharing import ContextLimit
from tinker_local.errors import BadRequestError, NotFoundError, TinkerError
from tinker_local.gguf.file import canonical_path, check_gguf, file_version, read_head
from tinker_local.options import Options
from tinker_local.store.catalog import find_entry
from tinker_local.store.known_model import KnownModel, choose
from tinker_local.store.model_store import ModelStore
from tinker_local.store.provenance import Provenance, is_same_model
from tinker_local.store.stored_checkpoint import StoredCheckpoint

_ONE_OF_TWO = frozenset(("output.weight", "token_embd.weight"))
"""Two names of one matrix in a model with tied embeddings; an adapter may change either of them."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model, and perhaps a LoRA on it.

    Attributes:
        path: the model's GGUF file.
        adapter_path: the LoRA's GGUF file.
        lora_scale: factor of the LoRA's update, on top of its own alpha / rank.
    """

    path: Path
    adapter_path: Path | None = None
    lora_scale: float = 1.0

    @classmethod
    def find(
        cls,
        store: ModelStore,
        model_path: str | os.PathLike[str] | None,
        base_model: str | os.PathLike[str] | None,
        lora_scale: float,
    ) -> Weights:
        """Find the files that the arguments of ``create_sampling_client`` mean; see there.

        A checkpoint that is not converted yet is converted first.

        Raises:
            ValueError: neither ``model_path`` nor ``base_model`` is given.
            NotFoundError: there is no such model or file.
            BadRequestError: a file is of another kind, or the arguments do not go together.
        """
        if not model_path and not base_model:
            raise ValueError("create_sampling_client needs model_path or base_model")
        scale = checks.lora_scale(lora_scale)
        base = os.fspath(base_model) if base_model else None
        if not model_path:
            assert base is not None
            return cls._whole(store.resolve(base), scale)
        given = _find_given(store, os.fspath(model_path), base)
        if read_head(given).is_adapter:
            return cls(_find_base(store, Provenance.of(given), base), given, scale)
        if base:
            raise BadRequestError(
                f"model_path is {given}, a whole model; leave out base_model ({store.resolve(base)})"
            )
        return cls._whole(given, scale)

    @classmethod
    def _whole(cls, path: Path, scale: float) -> Weights:
        if scale != 1:
            raise BadRequestError(f"lora_scale is {scale}, but there is no adapter to scale; leave it out")
        return cls(canonical_path(path))

    def version(self) -> tuple[object, ...]:
        """Return a value that differs once a file is changed or replaced.

        Raises:
            NotFoundError: a file is gone.
        """
        files = (self.path, *((self.adapter_path,) if self.adapter_path else ()))
        return tuple(file_version(check_gguf(path)) for path in files)

    def open(self, options: Options, limit: ContextLimit, on_step: OnStep | None = None) -> Engine:
        """Make an engine that computes with these files.

        Args:
            options: how to open them.
            limit: the budget of its context.
            on_step: told after each step how many tokens it prefilled and how many it sampled.

        Raises:
            NotFoundError: a file is gone.
            BadRequestError: llama.cpp does not accept a file, or the LoRA is for another model.
        """
        adapter = self.adapter_path and check_gguf(self.adapter_path)
        return Engine.open(check_gguf(self.path), options, adapter, self.lora_scale, limit, on_step)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of strings and numbers, for ``from_json``."""
        adapter = self.adapter_path and str(self.adapter_path)
        return {"path": str(self.path), "adapter_path": adapter, "lora_scale": self.lora_scale}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Weights:
        """Return the ``Weights`` that ``to_json`` was called on.

        Raises:
            KeyError, TypeError: the state is malformed.
        """
        adapter = state["adapter_path"]
        scale = checks.lora_scale(state["lora_scale"])
        return cls(Path(state["path"]), None if adapter is None else Path(adapter), scale)

    def __str__(self) -> str:
        if self.adapter_path is None:
            return str(self.path)
        return f"{self.path} + {self.lora_scale:g} * {self.adapter_path}"


def _find_given(store: ModelStore, name: str, base: str | None) -> Path:
    """Return the file that ``model_path`` stands for."""
    if not name.startswith("tinker://"):
        return canonical_path(store.resolve(name))
    checkpoint = StoredCheckpoint.find(name, store.directory)
    sweep(checkpoint.directory)
    return canonical_path(check_gguf(checkpoint.gguf or _convert(store, checkpoint, base)))


def _convert(store: ModelStore, checkpoint: StoredCheckpoint, base: str | None) -> Path:
    trained_on = checkpoint.trained_on()
    named = base or trained_on
    if named is None:
        raise BadRequestError(
            f"{checkpoint.path} is not converted yet, and does not name the model it was trained on; give "
            "base_model"
        )
    if base and trained_on and (names := _names(base)) and not is_same_model(trained_on, names):
        raise BadRequestError(f"{checkpoint.path} was trained on {trained_on}, but base_model is {base}")
    return checkpoint.converted(choose(named, _candidates(store, named, str(checkpoint.path))).require())


def _find_base(store: ModelStore, adapter: Provenance, given: str | None) -> Path:
    """Return the base of an adapter.

    A base outside of the store is found where it was when the adapter was converted. Otherwise, of the
    files that the base's name means, it is the most exact that fits; or a file of the store with the same
    weights.

    Args:
        store: where to look.
        adapter: what the adapter's file says of itself.
        given: ``base_model``; None for the base that the adapter names.
    """
    if given is None and (placed := _placed(adapter)):
        return _with_output(canonical_path(placed), adapter)
    name = given or adapter.base_name
    if name is None:
        raise BadRequestError(
            f"the adapter {adapter.path} does not name the model it was trained on; give base_model"
        )
    agreeing, problem = _agreeing(store, adapter, name, given)
    if not agreeing and given is None:
        agreeing = _with_its_weights(store, adapter)
    if not agreeing:
        raise problem
    fitting = [model for model in agreeing if adapter.weights <= Provenance.of(model.require()).weights]
    base = choose(name, fitting or agreeing).require()  # where none fits, loading says what is missing
    return _with_output(canonical_path(base), adapter)


def _placed(adapter: Provenance) -> Path | None:
    """Return the base where it was at the conversion; None if it is gone, or has other weights now."""
    path = adapter.base_path
    if path is None or not path.is_file():
        return None
    said = Provenance.of(check_gguf(path))
    return None if adapter.base_hash and adapter.base_hash != said.source_hash else path


def _agreeing(
    store: ModelStore, adapter: Provenance, name: str, given: str | None
) -> tuple[list[KnownModel], TinkerError]:
    """Return the models of a name that the adapter does not speak against, and what is wrong if none is."""
    try:
        models = store.candidates(name)
    except NotFoundError as error:
        return [], NotFoundError(f"{error}. It is needed as the base of {adapter.path}{_hint(adapter)}")
    agreeing, problem = [], ""
    for model in models:
        said = Provenance.of(model.require())
        if disagreement := adapter.disagreement(said, _names(name)):
            problem = problem or f"({model.path}) does not fit the adapter {adapter.path}: {disagreement}"
        else:
            agreeing.append(model)
    called = "base_model" if given else "the model"
    return agreeing, BadRequestError(f"{called} {name} {problem}{'' if given else _hint(adapter)}")


def _with_its_weights(store: ModelStore, adapter: Provenance) -> list[KnownModel]:
    """Return the most exact model of the store with the weights that the adapter was made for, if any."""
    found = []
    for model in store.models() if adapter.base_hash else ():
        with suppress(TinkerError):  # of a damaged file
            if model.path and Provenance.of(model.require()).source_hash == adapter.base_hash:
                found.append(model)
    return [max(found, key=lambda model: model.exactness)] if found else []


def _hint(adapter: Provenance) -> str:
    """Return where the base was, and what to do now."""
    path = adapter.base_path
    if path is None:
        return ""
    if path.is_dir():
        return f". It was made for the directory {path}; convert that, too: tinker-local convert {path}"
    state = "has other weights now" if path.is_file() else "is no longer there"
    return (
        f". It was made for {path}, which {state}: give the file's new place as base_model, or add it to "
        "the store, where it is found by its weights: tinker-local models add FILE"
    )


def _with_output(base: Path, adapter: Provenance) -> Path:
    """Return the base's file, or its copy with an output matrix of its own if the adapter needs one."""
    if not _ONE_OF_TWO & adapter.weights:
        return base
    from convert.untied import base_for  # imports the converter

    try:
        return canonical_path(base_for(base, adapter.path))
    except ConversionError as error:
        raise BadRequestError(f"the adapter {adapter.path} cannot be put on {base}: {error}") from None


def _candidates(store: ModelStore, name: str, needed_by: str) -> Sequence[KnownModel]:
    try:
        return store.candidates(name)
    except NotFoundError as error:
        raise NotFoundError(f"{error}. It is needed as the base of {needed_by}") from None


def _names(name: str) -> tuple[str, ...]:
    """Return the catalogue's names for a model, () if it is not in the catalogue."""
    name = name.partition("@")[0]
    entry = find_entry(name) or find_entry(split_type(name)[0]) or find_entry(name.partition(":")[0])
    return entry.names if entry else ()


__all__ = ["Weights"]
