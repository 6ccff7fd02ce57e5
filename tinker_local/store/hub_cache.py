"""The GGUF files in Hugging Face's cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convert.files.hub_cache import find_snapshot
from convert.gguf.file_types import split_type
from tinker_local.errors import BadRequestError
from tinker_local.store.known_model import KnownModel


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


def find_in_hub_cache(name: str) -> tuple[Snapshot, KnownModel | None] | None:
    """Return a snapshot for ``ORG/NAME``, ``ORG/NAME:TYPE`` or ``ORG/NAME-TYPE``, and the GGUF file in it.

    Without TYPE the file is the most exact there is. There is no file where the snapshot has only
    safetensors, or another type.

    Raises:
        BadRequestError: there are several files, and their names do not say their types.
    """
    repository, _, type = name.partition(":")
    found = find_snapshot(repository)
    if found is None:
        repository, suffix = split_type(repository)
        found, type = find_snapshot(repository), type or suffix or ""
    if found is None:
        return None
    snapshot = Snapshot(*found)
    models = [model for model in snapshot.models() if not type or model.type == type.casefold()]
    typed = [model for model in models if model.type]
    if len(models) > 1 and not typed:
        raise BadRequestError(
            f"{name!r} has several GGUF files in {snapshot.directory}: "
            f"{', '.join(model.name for model in models)}; give the path of one"
        )
    return snapshot, max(typed or models, key=lambda model: model.exactness, default=None)
