"""Where models are: a name or a path becomes a GGUF file on disk."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinker_local.errors import BadRequestError, NotFoundError

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent
_MAGIC = b"GGUF"


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

    ``extra`` names the extra of tinker-local that installs a missing one.
    """

    name: str
    aliases: tuple[str, ...] = ()
    path: Path | None = None
    license: str | None = None
    extra: str | None = None

    def answers_to(self, name: str) -> bool:
        """Whether ``name`` means this model; case does not matter."""
        return name.casefold() in {other.casefold() for other in (self.name, *self.aliases)}


class ModelStore:
    """The models of this machine: GGUF files in one directory, and those that packages carry.

    Args:
        directory: where the files are; None for ``models/`` in a checkout of tinker-local, else
            ``tinker-local/models`` in the user's data directory.
    """

    default_name = "SmolLM2-135M-Instruct"
    """The embedded model that serves when the command line is given none."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or _default_directory()

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
            BadRequestError: it is there but is not a GGUF file.
        """
        path = Path(name).expanduser()
        if path.exists():
            return check_gguf(path)
        if path.suffix == ".gguf" or name.startswith((".", "/", "~")):
            raise NotFoundError(f"there is no file {name} (from {Path.cwd()})")
        for model in self.models():
            if model.answers_to(name):
                return check_gguf(self._installed(model))
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
        if self.directory.is_dir():
            for path in sorted(self.directory.glob("*.gguf")):
                yield KnownModel(path.stem, path=path)

    def _catalogued(self) -> Iterator[KnownModel]:
        for entry in read_catalog():
            path = find_in_distribution(entry.distribution) if entry.distribution else None
            yield KnownModel(entry.name, entry.aliases, path, entry.license, entry.extra)


def read_catalog() -> list[CatalogEntry]:
    """Read the models known by name, from the checkout or the installed package."""
    in_checkout = _CHECKOUT / "models" / "catalog.toml"
    path = in_checkout if _is_checkout() else _PACKAGE / "catalog.toml"
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
    target = f"-e '{_CHECKOUT}[{extra}]'" if _is_checkout() else f"'tinker-local[{extra}]'"
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


def _is_checkout() -> bool:
    return (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "models").is_dir()


def _default_directory() -> Path:
    if _is_checkout():
        return _CHECKOUT / "models"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "tinker-local" / "models"


__all__ = ["KnownModel", "ModelStore"]
