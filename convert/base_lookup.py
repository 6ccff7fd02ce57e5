"""The base of an adapter, given a path or a name: what is on this machine under it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from convert.errors import ConversionError
from convert.file_types import inexactness
from convert.models_directory import models_directory, split_type


def find_base(name: str, *, needs_weights: bool = False) -> Path:
    """Return the directory or file of a model.

    A path comes first, then GGUF files in the models directory (of several the most exact), then Hugging
    Face's cache. Names are compared without regard to case.

    Args:
        name: a path, ``ORG/NAME``, ``ORG/NAME-TYPE`` or ``NAME``.
        needs_weights: only a Hugging Face directory will do.

    Raises:
        ConversionError: there is nothing of that name; the message says where it was looked for.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    home = models_directory()
    found = [] if needs_weights else sorted(_files(name, home), key=_exactness)
    if place := next(iter([*found, *_snapshots(name)]), None):
        return place
    where = f"in Hugging Face's cache {_cache()}" + ("" if needs_weights else f", in {home}")
    raise ConversionError(
        f"the base {name} is no path, and not {where}; give its directory or its GGUF file with --base"
    )


def _files(name: str, home: Path) -> Iterator[Path]:
    for path in (*home.glob("*.gguf"), *home.glob("*/*.gguf")):
        stem = str(path.relative_to(home).with_suffix(""))
        names = {other for whole in (stem, path.stem) for other in (whole, split_type(whole)[0])}
        if name.casefold() in {other.casefold() for other in names}:
            yield path


def _exactness(path: Path) -> tuple[tuple[int, int], str]:
    type = split_type(path.stem)[1]
    return (inexactness(type) if type else (-1, -1), str(path))


def _snapshots(name: str) -> Iterator[Path]:
    """Yield the snapshots of a repository that have a config.json, the main branch's first."""
    if name.count("/") != 1:
        return
    repository = _cache() / f"models--{name.replace('/', '--')}"
    reference = repository / "refs" / "main"
    main = reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""
    places = sorted((repository / "snapshots").glob("*"), key=lambda place: place.name != main)
    yield from (place for place in places if (place / "config.json").exists())


def _cache() -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := os.environ.get(variable):
            return Path(named).expanduser()
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(home).expanduser() / "hub"


__all__ = ["find_base"]
