"""The models directory: contents, damaged files, leftovers of killed runs; and a model that is tried."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.files.sizes import format_bytes
from tinker_local.doctor.diagnosis import Diagnosis
from tinker_local.errors import TinkerError
from tinker_local.gguf.model_check import check_model
from tinker_local.isolated import try_isolated
from tinker_local.store.catalog import find_entry
from tinker_local.store.inventory import Holding, inventory
from tinker_local.store.model_store import ModelStore
from tinker_local.store.provenance import Provenance

_AT_WORK = 3600.0  # seconds: a younger unfinished file may belong to a run that is still at work
_ROOM = 1 << 30  # free bytes of disk below which few models can be added


@dataclass(frozen=True)
class StoreContents:
    """Contents and state of the models directory.

    Attributes:
        directory: the models directory.
        is_writable: whether files can be added.
        n_free: free bytes of its disk.
        models: models, adapters and checkpoints, including models of installed packages.
        problems: name -> why it cannot be used.
        leftovers: path of an unfinished file or directory -> its bytes.
    """

    directory: Path
    is_writable: bool
    n_free: int
    models: list[Holding]
    problems: dict[str, str]
    leftovers: dict[Path, int]

    @classmethod
    def of(cls, store: ModelStore) -> StoreContents:
        """Examine a store."""
        home = store.directory
        there = next(path for path in (home, *home.absolute().parents) if path.exists())
        models = inventory(store)
        return cls(
            home,
            there.is_dir() and os.access(there, os.W_OK | os.X_OK),
            shutil.disk_usage(there).free,
            models,
            dict(_problems(models)),
            dict(_leftovers(home)),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Directory, disk space and counts, for people."""
        n_adapters = sum(holding.is_adapter for holding in self.models)
        return {
            "directory": str(self.directory),
            "writable": self.is_writable,
            "disk free": format_bytes(self.n_free),
            "models": len(self.models) - n_adapters,
            "adapters": n_adapters,
            "size": format_bytes(sum(holding.n_bytes for holding in self.models)),
            "damaged": len(self.problems),
            "unfinished": len(self.leftovers),
        }

    def diagnoses(self) -> Iterator[Diagnosis]:
        """Yield an unwritable directory, a full disk, damaged models and leftovers."""
        if not self.is_writable:
            yield Diagnosis(
                f"nothing can be written to {self.directory}",
                "change its permissions, or set TINKER_LOCAL_MODELS_DIR to another place",
            )
        if self.n_free < _ROOM:
            said = f"the disk of {self.directory} has only {format_bytes(self.n_free)} left"
            yield Diagnosis(said, "free some space before you add or convert a model", is_wrong=False)
        for name, problem in self.problems.items():
            remedy = f"get it again, or remove it: tinker-local models remove {name}"
            yield Diagnosis(f"{name} cannot be used: {problem}", remedy)
        for path, n_bytes in self.leftovers.items():
            said = f"{path} ({format_bytes(n_bytes)}) was left by a run that was killed"
            yield Diagnosis(said, f"delete it: rm -r {path}")


@dataclass(frozen=True)
class TriedModel:
    """A model that was tried in a separate process.

    Attributes:
        name: name or path that was asked for.
        path: the model's file; None if there is none.
        tokenizer: which tokenizer runs: the source's, if the file has it, or llama.cpp's.
        problem: why it does not work; None if it does.
        limits: what the model allows less than others do, a sentence each.
    """

    name: str
    path: Path | None
    problem: str | None
    tokenizer: str | None = None
    limits: tuple[str, ...] = ()

    @classmethod
    def of(cls, store: ModelStore, name: str | None) -> TriedModel:
        """Try a model; ``name`` None means the default model."""
        wanted, path = name or store.default_name, None
        try:
            path = store.resolve(wanted).resolve()
            try_isolated(path)
        except TinkerError as error:
            return cls(wanted, path, str(error))
        told = Provenance.of(path)
        return cls(wanted, path, None, told.tokenizer, told.limits)

    @property
    def facts(self) -> dict[str, Any]:
        """Name, file and state, for people."""
        state = "works" if self.problem is None else "is damaged" if self.path else "is not there"
        facts = {"name": self.name, "file": self.path and str(self.path), "state": state}
        facts |= {"tokenizer": self.tokenizer} if self.tokenizer else {}
        return facts | ({"limits": "; ".join(self.limits)} if self.limits else {})

    def diagnoses(self, contents: StoreContents) -> Iterator[Diagnosis]:
        """Yield the problem, if any; a missing default model is none where other models can be used."""
        if self.problem is None:
            return
        entry = find_entry(self.name)
        get = entry.how_to_get if entry else "tinker-local models lists the models that are here"
        if self.path is not None:
            yield Diagnosis(f"{self.name} was tried and failed: {self.problem}", f"get it again: {get}")
        else:
            is_default = self.name == ModelStore.default_name
            said = f"the default model {self.name} is not there" if is_default else self.problem
            usable = any(not holding.is_adapter for holding in contents.models)
            yield Diagnosis(said, f"get it: {get}", is_wrong=not (is_default and usable))


def _problems(models: list[Holding]) -> Iterator[tuple[str, str]]:
    """Yield name and problem of each model that llama.cpp would refuse or crash on."""
    for holding in models:
        problem = holding.problem
        if problem is None and holding.provenance and not holding.is_adapter:
            try:
                check_model(holding.path)
            except TinkerError as error:
                problem = str(error)
        if problem is not None:
            yield holding.name, problem


def _leftovers(home: Path) -> Iterator[tuple[Path, int]]:
    """Yield path and bytes of unfinished files: hidden until a run completes and renames them."""
    for path in sorted(home.rglob(".*")):
        if path.suffix not in (".part", ".removed"):
            continue
        files = [path, *path.rglob("*")]
        stats = [file.lstat() for file in files]
        if time.time() - max(stat.st_mtime for stat in stats) > _AT_WORK:
            yield path, sum(stat.st_size for stat, file in zip(stats, files, strict=True) if file.is_file())
