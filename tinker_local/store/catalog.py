"""The catalogue: the usual base models, from ``models/catalog.toml``."""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from convert.files.models_directory import in_checkout

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parent


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model of the catalogue; the head of ``models/catalog.toml`` describes the fields."""

    name: str
    aliases: tuple[str, ...]
    context_length: int
    license: str
    source: str
    distribution: str | None = None
    extra: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its aliases."""
        return self.name, *self.aliases

    @property
    def how_to_get(self) -> str:
        """The command that installs it, or those that fetch and convert it."""
        if self.extra:
            return install_command(self.extra)
        repository = self.source.removeprefix("https://huggingface.co/")
        plain = repository.rpartition("/")[2]
        return (
            f"hf download {repository} --local-dir {plain} && "
            f"tinker-local convert {plain} --name {repository}"
        )


@cache
def read_catalog() -> tuple[CatalogEntry, ...]:
    """Read the catalogue from the checkout or from the installed package."""
    path = _CHECKOUT / "models" / "catalog.toml" if in_checkout() else _PACKAGE / "catalog.toml"
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["model"]
    return tuple(CatalogEntry(**{**table, "aliases": tuple(table["aliases"])}) for table in tables)


def find_entry(name: str) -> CatalogEntry | None:
    """Return the entry of a name or alias, None if there is none; case does not matter."""
    for entry in read_catalog():
        if name.casefold() in map(str.casefold, entry.names):
            return entry
    return None


def other_names(name: str) -> tuple[str, ...]:
    """Return ``name``, then the catalogue's other names of the same model."""
    entry = find_entry(name)
    return tuple(dict.fromkeys((name, *entry.names))) if entry else (name,)


def find_in_distribution(name: str) -> Path | None:
    """Return the GGUF file in an installed distribution, without importing the distribution."""
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
