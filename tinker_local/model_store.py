"""Where models are: a name or a path becomes a GGUF file on disk."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convert.file_types import FILE_TYPES
from convert.models_directory import in_checkout, models_directory, split_type
from tinker_local.errors import BadRequestError, NotFoundError

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent
_MAGIC = b"GGUF"
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-\d{5}")
_TYPES = tuple(FILE_TYPES)  # the most exact first


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model known by name; see the head of ``models/catalog.toml`` for the fields."""

    name: str
    aliases: tuple[str, ...]
    context_length: int
    license: str
    source: str
    distribution: str | None = None
    extra: str | None = None


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that can be asked for by name, and its file if it is here.

    ``extra`` names the extra of tinker-local that installs a missing one; ``type`` is the number format
    that the file's name ends in.
    """

    name: str
    aliases: tuple[str, ...] = ()
    path: Path | None = None
    license: str | None = None
    extra: str | None = None
    type: str | None = None

    def answers_to(self, name: str) -> bool:
        """Whether ``name`` means this model; case does not matter."""
        return name.casefold() in {other.casefold() for other in (self.name, *self.aliases)}

    @property
    def exactness(self) -> int:
        """Larger for more exact types of a model."""
        return -_TYPES.index(self.type) if self.type else 1


class ModelStore:
    """The models of this machine: GGUF files in one directory, and those that packages carry.

    ``ORG/NAME-TYPE.gguf`` in the directory is found as ``ORG/NAME-TYPE``, ``NAME-TYPE``, ``ORG/NAME`` and
    ``NAME``; without ORG or TYPE, by what there is. Where a name without a type means several files, it
    is the most exact of them; without an organisation, it must be the only one of that name.

    Args:
        directory: where the files are; None for ``models/`` in a checkout of tinker-local, else
            ``tinker-local/models`` in the user's data directory.
    """

    default_name = "SmolLM2-135M-Instruct"
    """The embedded model that serves when the command line is given none."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or models_directory()

    def models(self) -> list[KnownModel]:
        """Return what can be used or installed: the directory's files, then the catalogue."""
        return [*self._files(), *self._catalogued()]

    def resolve(self, name: str) -> Path:
        """Return the GGUF file that a path or a name stands for.

        A path to an existing file comes first, then a file in the store's directory, then the
        catalogue. Names are compared without regard to case.

        Raises:
            NotFoundError: nothing of that name; the message says where it was looked for, what is
                there, and how to install a known model that is missing.
            BadRequestError: it is there but is not a GGUF file, or models of several organisations have
                this name.
        """
        path = Path(name).expanduser()
        if path.exists():
            return check_gguf(path)
        if path.suffix == ".gguf" or name.startswith((".", "/", "~")):
            raise NotFoundError(f"there is no file {name} (from {Path.cwd()})")
        for models in (self._files(), self._catalogued()):
            if found := [model for model in models if model.answers_to(name)]:
                return check_gguf(self._installed(_choose(name, found)))
        raise NotFoundError(
            f"no model is called {name!r}: it is not a path from {Path.cwd()}, not a GGUF file in "
            f"{self.directory}, and not in the catalogue. There are: "
            f"{', '.join(model.name for model in self.models())}"
        )

    def _installed(self, model: KnownModel) -> Path:
        if model.path is None:
            raise NotFoundError(
                f"the model {model.name} is known but not installed; this installs it: "
                f"{install_command(model.extra or 'demo')}"
            )
        return model.path

    def _files(self) -> Iterator[KnownModel]:
        for pattern in ("*.gguf", "*/*.gguf"):
            for path in sorted(self.directory.glob(pattern)):
                part = _PART.fullmatch(path.stem)
                if part is None or int(part["number"]) == 1:  # llama.cpp opens the others itself
                    yield _known(path, self.directory, part["stem"] if part else path.stem)

    def _catalogued(self) -> Iterator[KnownModel]:
        for entry in read_catalog():
            path = find_in_distribution(entry.distribution) if entry.distribution else None
            yield KnownModel(entry.name, entry.aliases, path, entry.license, entry.extra)


def read_catalog() -> list[CatalogEntry]:
    """Read the models known by name, from the checkout or the installed package."""
    path = _CHECKOUT / "models" / "catalog.toml" if in_checkout() else _PACKAGE / "catalog.toml"
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["model"]
    return [CatalogEntry(**{**table, "aliases": tuple(table["aliases"])}) for table in tables]


def find_in_distribution(name: str) -> Path | None:
    """Return the GGUF file an installed distribution carries, without importing it."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        path = Path(str(file.locate()))
        if file.suffix == ".gguf" and path.is_file():
            return path
    return None


def install_command(extra: str) -> str:
    """Return the one command that installs an extra into the Python that is running."""
    target = f"-e '{_CHECKOUT}[{extra}]'" if in_checkout() else f"'tinker-local[{extra}]'"
    return f"{sys.executable} -m pip install {target}"


def check_gguf(path: Path) -> Path:
    """Return ``path`` if it looks like a GGUF file.

    Raises:
        NotFoundError: it is not there.
        BadRequestError: it is a directory, empty, unreadable, or starts with other bytes.
    """
    if not path.exists():
        raise NotFoundError(f"there is no file {path}")
    if path.is_dir():
        found = sorted(file.name for file in path.glob("*.gguf"))
        hint = f"; it holds {', '.join(found)}" if found else " and holds no .gguf file"
        raise BadRequestError(f"{path} is a directory, not a GGUF file{hint}")
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read: {error.strerror}") from error
    if not magic:
        raise BadRequestError(f"{path} is empty")
    if magic != _MAGIC:
        raise BadRequestError(f"{path} is not a GGUF file: it starts with {magic!r}, not {_MAGIC!r}")
    return path


def _known(path: Path, directory: Path, stem: str) -> KnownModel:
    """Return the model of a file; ``stem``: its name, less what makes it a part."""
    plain, type = split_type(stem)
    organisation = path.parent.relative_to(directory).name
    names = [stem, plain]
    if organisation:
        names = [f"{organisation}/{stem}", stem, f"{organisation}/{plain}", plain]
    name, *aliases = dict.fromkeys(names)
    return KnownModel(name, tuple(aliases), path, type=type)


def _choose(name: str, models: list[KnownModel]) -> KnownModel:
    """Return what a name means, of those that answer to it."""
    named = [model for model in models if model.name.casefold() == name.casefold()]
    places = {model.path and model.path.parent for model in models}
    if len(places) > 1 and not named:
        raise BadRequestError(
            f"{name!r} could be any of {', '.join(model.name for model in models)}; say the whole name"
        )
    return max(named or models, key=lambda model: model.exactness)


__all__ = ["KnownModel", "ModelStore"]
