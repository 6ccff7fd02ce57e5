"""The models directory: what it holds, what is damaged, what was left by runs that were killed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.files.sizes import format_bytes
from tinker_local.doctor.finding import Finding
from tinker_local.errors import TinkerError
from tinker_local.gguf.model_check import check_model
from tinker_local.isolated import try_isolated
from tinker_local.store.catalog import find_entry
from tinker_local.store.inventory import Holding, inventory
from tinker_local.store.model_store import ModelStore

_AT_WORK = 3600.0  # seconds: what changed since then may belong to a run that is at work
_ROOM = 1 << 30  # bytes of disk with which little more can be stored


@dataclass(frozen=True)
class Holdings:
    """What is in a store.

    Attributes:
        directory: where it is.
        is_writable: whether files can be put there.
        n_free: bytes of its disk that are free.
        models: models, adapters and checkpoints, those of packages included.
        problems: what is wrong with those that cannot be used, by name.
        leftovers: unfinished files, with their bytes.
    """

    directory: Path
    is_writable: bool
    n_free: int
    models: list[Holding]
    problems: dict[str, str]
    leftovers: dict[Path, int]

    @classmethod
    def of(cls, store: ModelStore) -> Holdings:
        """Look at a store."""
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
        """These, for people."""
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

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong with it."""
        if not self.is_writable:
            yield Finding(
                f"nothing can be written to {self.directory}",
                "change its permissions, or set TINKER_LOCAL_MODELS_DIR to another place",
            )
        if self.n_free < _ROOM:
            said = f"{self.directory} has {format_bytes(self.n_free)} of disk left"
            yield Finding(said, "make room before a model is added or converted", is_wrong=False)
        for name, problem in self.problems.items():
            remedy = f"get it again, or remove it: tinker-local models remove {name}"
            yield Finding(f"{name} cannot be used: {problem}", remedy)
        for path, n_bytes in self.leftovers.items():
            said = f"{path} ({format_bytes(n_bytes)}) was left by a run that was killed"
            yield Finding(said, f"delete it: rm -r {path}")


@dataclass(frozen=True)
class Trial:
    """A model, tried in a process of its own.

    Attributes:
        name: what was asked for.
        path: its file, None if it is not there.
        problem: what is wrong with it; None if it works.
    """

    name: str
    path: Path | None
    problem: str | None

    @classmethod
    def of(cls, store: ModelStore, name: str | None) -> Trial:
        """Try a model; None for the default one."""
        wanted, path = name or store.default_name, None
        try:
            path = store.resolve(wanted).resolve()
            try_isolated(path)
        except TinkerError as error:
            return cls(wanted, path, str(error))
        return cls(wanted, path, None)

    @property
    def facts(self) -> dict[str, Any]:
        """These, for people."""
        state = "works" if self.problem is None else "is damaged" if self.path else "is not there"
        return {"name": self.name, "file": self.path and str(self.path), "state": state}

    def findings(self, holdings: Holdings) -> Iterator[Finding]:
        """Yield what is wrong with it."""
        if self.problem is None:
            return
        entry = find_entry(self.name)
        get = entry.how_to_get if entry else "tinker-local models lists what there is"
        if self.path is not None:
            yield Finding(f"{self.name} was tried and failed: {self.problem}", f"get it again: {get}")
        else:
            is_default = self.name == ModelStore.default_name
            said = f"the default model {self.name} is not there" if is_default else self.problem
            usable = any(not holding.is_adapter for holding in holdings.models)
            yield Finding(said, f"get it: {get}", is_wrong=not (is_default and usable))


def _problems(models: list[Holding]) -> Iterator[tuple[str, str]]:
    """Yield what cannot be used, and why: llama.cpp would refuse it, or end the process on it."""
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
    """Yield hidden files and directories that runs give their names when they are done."""
    for path in sorted(home.rglob(".*")):
        if path.suffix not in (".part", ".removed"):
            continue
        files = [path, *path.rglob("*")]
        stats = [file.lstat() for file in files]
        if time.time() - max(stat.st_mtime for stat in stats) > _AT_WORK:
            yield path, sum(stat.st_size for stat, file in zip(stats, files, strict=True) if file.is_file())
