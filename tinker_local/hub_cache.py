"""What Hugging Face's tools have downloaded before: snapshots of repositories, found without a network.

Layout: ``models--ORG--NAME/snapshots/COMMIT/...`` with the commit of a branch in ``refs/BRANCH``
(huggingface_hub's documentation, "Understand caching").
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convert.models_directory import split_type
from tinker_local.errors import BadRequestError
from tinker_local.known_model import KnownModel

_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_COMMIT = re.compile(r"\w+", re.ASCII)


def hub_cache(environment: Mapping[str, str] | None = None) -> Path:
    """Return where snapshots are: ``HF_HUB_CACHE``, ``HUGGINGFACE_HUB_CACHE``, ``hub`` in ``HF_HOME``."""
    environment = os.environ if environment is None else environment
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := environment.get(name):
            return Path(os.path.expandvars(value)).expanduser()
    if value := environment.get("HF_HOME"):
        return Path(os.path.expandvars(value)).expanduser() / "hub"
    caches = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "huggingface" / "hub"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository's files at one commit, those of them that were downloaded."""

    repository: str
    directory: Path

    def models(self) -> list[KnownModel]:
        """Return its GGUF files, without vision projectors."""
        found = []
        for path in sorted(self.directory.rglob("*.gguf")):
            model = KnownModel.of_file(path) if path.is_file() else None
            if model and not path.name.startswith("mmproj"):
                whole = f"{self.repository}:{model.type}" if model.type else model.name
                found.append(KnownModel(whole, (model.name,), path, type=model.type))
        return found

    @property
    def is_checkpoint(self) -> bool:
        """Whether it holds what the converter starts from: weights of a model or of an adapter."""
        return any(self.directory.glob("*.safetensors"))


def find_snapshot(name: str) -> Snapshot | None:
    """Return the snapshot of ``ORG/NAME`` that the branch ``main`` stands for, else the newest one."""
    if not _REPOSITORY.fullmatch(name):
        return None
    folder = f"models--{name.replace('/', '--')}".casefold()
    try:
        homes = [path for path in hub_cache().iterdir() if path.name.casefold() == folder]
    except OSError:
        return None
    for home in homes:
        if directory := _newest(home):
            return Snapshot(home.name.removeprefix("models--").replace("--", "/", 1), directory)
    return None


def find_in_hub_cache(name: str) -> tuple[Snapshot, KnownModel | None] | None:
    """Return a snapshot for ``ORG/NAME``, ``ORG/NAME:TYPE`` or ``ORG/NAME-TYPE``, and the GGUF file in it.

    Without TYPE the file is the most exact there is. There is no file where the snapshot has only
    safetensors, or another type.

    Raises:
        BadRequestError: there are several files, and their names do not say their types.
    """
    repository, _, type = name.partition(":")
    snapshot = find_snapshot(repository)
    if snapshot is None:
        repository, suffix = split_type(repository)
        snapshot, type = find_snapshot(repository), type or suffix or ""
    if snapshot is None:
        return None
    models = [model for model in snapshot.models() if not type or model.type == type.casefold()]
    typed = [model for model in models if model.type]
    if len(models) > 1 and not typed:
        raise BadRequestError(
            f"{name!r} has several GGUF files in {snapshot.directory}: "
            f"{', '.join(model.name for model in models)}; give the path of one"
        )
    return snapshot, max(typed or models, key=lambda model: model.exactness, default=None)


def _newest(home: Path) -> Path | None:
    try:
        commit = (home / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = ""
    main = home / "snapshots" / commit
    if _COMMIT.fullmatch(commit) and main.is_dir():
        return main
    snapshots = [path for path in home.glob("snapshots/*") if path.is_dir()]
    return max(snapshots, key=lambda path: path.stat().st_mtime, default=None)
