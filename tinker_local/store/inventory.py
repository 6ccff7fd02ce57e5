"""What is in the store: every model, adapter and checkpoint, with its kind, size and base."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tinker_local.errors import TinkerError
from tinker_local.store.catalog import find_entry, other_names
from tinker_local.store.known_model import KnownModel
from tinker_local.store.mmproj import modalities
from tinker_local.store.model_store import ModelStore
from tinker_local.store.provenance import Provenance, is_same_model
from tinker_local.store.stored_checkpoint import StoredCheckpoint
from tinker_local.store.tuned import Tuned


@dataclass(frozen=True, slots=True)
class Holding:
    """A model, adapter or checkpoint that is here and opens by its name.

    Attributes:
        name: a model's name or a checkpoint's ``tinker://`` path.
        path: its file; of a checkpoint that is not converted yet, the download.
        n_bytes: of all its files.
        aliases: other names.
        license: the catalogue's, else the file's.
        provenance: what the file says of itself; None if it is unreadable or not converted yet.
        base_name: the model an adapter was trained on, if it says so.
        problem: why it cannot be used; None if it can.
        reads: what a model reads: ``text``, ``images``, ``audio``.
        tuned: kind of work -> the type that ``models tune`` chose, None for the file as it is; None if
            the model was not tuned.
    """

    name: str
    path: Path
    n_bytes: int
    aliases: tuple[str, ...] = ()
    license: str | None = None
    provenance: Provenance | None = None
    base_name: str | None = None
    problem: str | None = None
    reads: tuple[str, ...] = ("text",)
    tuned: Mapping[str, str | None] | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter, which needs a base."""
        return self.provenance.is_adapter if self.provenance else self.name.startswith("tinker://")

    @property
    def kind(self) -> str:
        """Its number format, or "unreadable", "not converted yet" or "unknown type"."""
        if self.problem:
            return "unreadable"
        if self.provenance is None:
            return "not converted yet"
        return self.provenance.type or "unknown type"

    def fits(self, base: Holding) -> bool:
        """Whether this adapter is for that model, by their hashes, else by their names."""
        if base.provenance is None or base.is_adapter or not self.is_adapter:
            return False
        if self.provenance and self.provenance.base_hash and base.provenance.source_hash:
            return self.provenance.base_hash == base.provenance.source_hash
        names = (base.provenance.name or base.name, *other_names(base.name), *base.aliases)
        return self.base_name is not None and is_same_model(self.base_name, names)


def inventory(store: ModelStore) -> list[Holding]:
    """Return everything in the store: models and adapters, then checkpoints."""
    models = [_model(model, store.directory) for model in store.models() if model.path]
    return [*models, *map(_checkpoint, StoredCheckpoint.all(store.directory))]


def _model(model: KnownModel, home: Path) -> Holding:
    path = model.path or Path()
    entry = find_entry(model.name)
    try:
        provenance, reads = Provenance.of(model.require()), modalities(path)
    except TinkerError as error:
        return Holding(model.name, path, model.n_bytes, model.aliases, problem=str(error))
    license = (entry.license if entry else None) or provenance.license
    return Holding(
        model.name,
        path,
        model.n_bytes,
        model.aliases,
        license,
        provenance,
        provenance.base_name,
        reads=reads,
        tuned=_tuned(model, home),
    )


def _tuned(model: KnownModel, home: Path) -> Mapping[str, str | None] | None:
    with suppress(TinkerError):  # is said where it is used
        tuned = Tuned.read(home, model)
        if tuned and tuned.source_bytes == model.n_bytes:
            return tuned.types
    return None


def _checkpoint(checkpoint: StoredCheckpoint) -> Holding:
    name, path = str(checkpoint.path), checkpoint.gguf
    try:
        if path is None:
            source = checkpoint.source or checkpoint.directory
            base = checkpoint.trained_on() if source.is_dir() else None
            return Holding(name, source, _n_bytes(source), base_name=base)
        provenance, reads = Provenance.of(path), modalities(path)
    except TinkerError as error:
        path = path or checkpoint.directory
        return Holding(name, path, _n_bytes(path), problem=str(error))
    base, n_bytes = provenance.base_name, KnownModel(name, path=path).n_bytes
    return Holding(name, path, n_bytes, (), provenance.license, provenance, base, reads=reads)


def _n_bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.iterdir()
    return sum(file.stat().st_size for file in files if file.is_file())
