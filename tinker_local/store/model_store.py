"""ModelStore: finds the GGUF file that a name or a path means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from convert.files.hub_cache import hub_cache
from convert.files.mmproj import is_mmproj
from convert.files.models_directory import models_directory
from tinker_local.errors import BadRequestError, NotFoundError
from tinker_local.gguf.file import check_gguf
from tinker_local.store.catalog import find_entry, find_in_distribution, other_names, read_catalog
from tinker_local.store.hub_cache import find_in_hub_cache
from tinker_local.store.known_model import KnownModel, choose
from tinker_local.store.tuned import WORKS, Tuned


class ModelStore:
    """The models of this machine: GGUF files in one directory, and those that packages carry.

    ``ORG/NAME-TYPE.gguf`` in the directory is found as ``ORG/NAME-TYPE``, ``NAME-TYPE``, ``ORG/NAME`` and
    ``NAME``; without ORG or TYPE, by what there is. Where a name without a type means several files, it
    is the most exact of them; without an organisation, it must be the only one of that name. The
    catalogue's names for one model are the same. ``NAME@score``, ``NAME@one`` and ``NAME@batch`` are the
    type that was found best for this kind of work; see ``tinker-local models tune``.

    Args:
        directory: where the files are; None for ``models/`` in a checkout of tinker-local, else
            ``tinker-local/models`` in the user's data directory.
    """

    default_name = "SmolLM2-135M-Instruct"
    """The embedded model, which the command line takes by default."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or models_directory()

    def models(self) -> list[KnownModel]:
        """Return the models in the directory, then the rest of the catalogue, whether here or not."""
        files = list(self.files())
        return [
            *files,
            *(
                model
                for model in self._catalogued()
                if model.path or not any(file.answers_to(model.name) for file in files)
            ),
        ]

    def resolve(self, name: str) -> Path:
        """Return the GGUF file that a path or a name stands for.

        The order of the search: a file of this path; a file of this name in the store's directory; the
        catalogue's model of this name, if a package carries it; a snapshot of the repository ORG/NAME in
        Hugging Face's cache. Case does not matter.

        Raises:
            NotFoundError: there is nothing of that name. The message says where was searched, what is
                there, and how to get or convert a known model.
            BadRequestError: the file is not a GGUF file, or models of several organisations have this
                name.
        """
        return choose(name, self.candidates(name)).require()

    def candidates(self, name: str) -> list[KnownModel]:
        """Return the models that a path or a name can mean, at least one; see ``resolve``.

        Raises:
            NotFoundError: there is no such model.
            BadRequestError: the path is not that of a GGUF file.
        """
        if name.startswith("tinker://"):
            raise BadRequestError(
                f"{name!r} is the path of a checkpoint, not of a base model; give it as model_path"
            )
        path = Path(name).expanduser()
        if path.exists():
            return [KnownModel(name, path=check_gguf(path))]
        plain, _, work = name.rpartition("@")
        if plain and work in WORKS:
            return [self._tuned(plain, work)]
        if path.suffix == ".gguf" or name.startswith((".", "/", "~")):
            raise NotFoundError(f"there is no file {name} (from {Path.cwd()})")
        if found := self.find(name):
            return found
        raise NotFoundError(self._missing(name))

    def find(self, name: str) -> list[KnownModel]:
        """Return the models that a name can mean, from the first place that has any.

        Raises:
            BadRequestError: see ``find_in_hub_cache``.
        """
        names = other_names(name)
        for models in (self.files(), self._catalogued()):
            if found := [model for model in models if model.path and any(map(model.answers_to, names))]:
                return found
        for other in names:
            in_hub_cache = find_in_hub_cache(other)
            if in_hub_cache and in_hub_cache[1]:
                return [in_hub_cache[1]]
        return []

    def _tuned(self, name: str, work: str) -> KnownModel:
        """Return the file that was found best for a kind of work."""
        source = choose(name, self.candidates(name))
        tuned = Tuned.read(self.directory, source)
        if tuned is None:
            raise NotFoundError(
                f"{name} was not tuned on this machine; run: tinker-local models tune {name} --keep"
            )
        if tuned.source_bytes != source.n_bytes:
            raise BadRequestError(
                f"{name} was tuned from a file of {tuned.source_bytes:,} bytes, but is now {source.path} "
                f"of {source.n_bytes:,}; tune it again: tinker-local models tune {name} --keep"
            )
        path = tuned.file(work)
        if path is None:
            return source
        if not path.is_file():
            raise NotFoundError(
                f"{name}@{work} is {path}, which is missing; make it again: tinker-local convert "
                f"{source.path} --type {tuned.types[work]} --output {path}"
            )
        return KnownModel(f"{name}@{work}", path=path, type=tuned.types[work])

    def _missing(self, name: str) -> str:
        for other in other_names(name):
            found = find_in_hub_cache(other)
            if found and found[0].is_checkpoint:
                return (
                    f"{name!r} is in Hugging Face's cache as safetensors; convert it: "
                    f"tinker-local convert {found[0].directory}"
                )
        present = ", ".join(model.name for model in self.models() if model.path) or "none"
        said = (
            f"no model is called {name!r}: it is not a path from {Path.cwd()}, not a GGUF file in "
            f"{self.directory}, not carried by a package, and not in Hugging Face's cache {hub_cache()}. "
            f"There are: {present}"
        )
        if entry := find_entry(name):
            said = (
                f"the model {entry.name} is known but not installed; get it: {entry.how_to_get} "
                f"(looked for: a path from {Path.cwd()}, a GGUF file in {self.directory}, a package, and "
                f"Hugging Face's cache {hub_cache()})"
            )
        return said

    def files(self) -> Iterator[KnownModel]:
        """Yield the models and adapters in the store's directory, without checkpoints."""
        for pattern in ("*.gguf", "*/*.gguf"):
            for path in sorted(self.directory.glob(pattern)):
                if is_mmproj(path):  # part of a model
                    continue
                organisation = path.parent.relative_to(self.directory).name
                if organisation.startswith("."):  # of a run that is at work, or was killed
                    continue
                if model := KnownModel.of_file(path, organisation):
                    yield model

    def _catalogued(self) -> Iterator[KnownModel]:
        for entry in read_catalog():
            path = find_in_distribution(entry.distribution) if entry.distribution else None
            yield KnownModel(
                entry.name, entry.aliases, path, entry.license, entry.extra, how_to_get=entry.how_to_get
            )


__all__ = ["KnownModel", "ModelStore"]
