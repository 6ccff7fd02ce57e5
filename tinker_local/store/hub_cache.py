"""The GGUF files in Hugging Face's cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convert.files.hub_cache import find_snapshot
from convert.files.mmproj import is_mmproj
from convert.gguf.file_types import split_type
from tinker_local.errors import BadRequestError
from tinker_local.store.known_model import KnownModel


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The downloaded files of a repository at one commit."""

    repository: str
    directory: Path

    def models(self) -> list[KnownModel]:
        """Return its GGUF files, without vision projectors."""
        found = []
        for path in sorted(self.directory.rglob("*.gguf")):
            model = KnownModel.of_file(path) if path.is_file() else None
            if model and not is_mmproj(path):
                whole = f"{self.repository}:{model.type}" if model.type else model.name
                found.append(KnownModel(whole, (model.name,), path, type=model.type))
        return found

    @property
    def is_checkpoint(self) -> bool:
        """Whether it has safetensors, which the converter starts from."""
        return any(self.directory.glob("*.safetensors"))


def find_in_hub_cache(name: str) -> tuple[Snapshot, KnownModel | None] | None:
    """Return a snapshot for ``ORG/NAME``, ``ORG/NAME:TYPE`` or ``ORG/NAME-TYPE``, and the GGUF file in it.

    Without TYPE, the most exact file is taken. The file is None where the snapshot has only safetensors,
    or other types.

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
