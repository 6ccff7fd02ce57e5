"""Finds the base of an adapter on this machine, given a path or a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from convert.errors import ConversionError
from convert.files.hub_cache import find_snapshot, hub_cache
from convert.files.models_directory import models_directory
from convert.gguf.file_types import inexactness, split_type


def find_base(
    name: str, *, needs_weights: bool = False, elsewhere: Callable[[str], Path] | None = None
) -> Path:
    """Return the directory or file of a model.

    A path comes first, then GGUF files in the models directory (of several the most exact), then Hugging
    Face's cache. Names are compared without regard to case.

    Args:
        name: a path, ``ORG/NAME``, ``ORG/NAME-TYPE`` or ``NAME``.
        needs_weights: only a Hugging Face directory will do.
        elsewhere: looks for a GGUF file in further places; raises ConversionError if there is none.

    Raises:
        ConversionError: there is nothing of that name; the message says where it was looked for.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    home = models_directory()
    found = [] if needs_weights else sorted(_files(name, home), key=_exactness)
    if found:
        return found[0]
    snapshot = find_snapshot(name)
    if snapshot and (snapshot[1] / "config.json").exists():
        return snapshot[1]
    if elsewhere and not needs_weights:
        return elsewhere(name)
    where = f"and has no snapshot with a config.json in Hugging Face's cache {hub_cache()}"
    if needs_weights:
        raise ConversionError(
            f"the base {name} is no path {where}; merging needs the weights: give their directory with "
            "--base"
        )
    raise ConversionError(
        f"the base {name} is no path, no GGUF file in {home}, {where}; give its directory or its GGUF file "
        "with --base"
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


__all__ = ["find_base"]
