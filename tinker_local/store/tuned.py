"""Tuned: the types that ``models tune`` chose for a model: ``NAME@score``, ``NAME@one``, ``NAME@batch``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.files.whole_file import whole_file
from convert.gguf.file_types import split_type
from tinker_local.errors import BadRequestError
from tinker_local.store.known_model import KnownModel

WORKS = ("score", "one", "batch")
"""Kinds of work: scoring texts, one sample at a time, many samples at once."""

_FILE = "tuned.json"


@dataclass(frozen=True, slots=True)
class Tuned:
    """The types chosen for a model, in ``tuned/NAME/`` of the models directory.

    Attributes:
        directory: where the choice and its files lie.
        source_bytes: size of the file that the types were made from.
        types: the chosen type for each kind of work; None for that file as it is.
    """

    directory: Path
    source_bytes: int
    types: Mapping[str, str | None]

    @classmethod
    def read(cls, home: Path, model: KnownModel) -> Tuned | None:
        """Return the choice for a model, None if there is none.

        Raises:
            BadRequestError: the file of the choice is damaged.
        """
        path = tuned_directory(home, model) / _FILE
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            types = {work: said["types"][work] for work in WORKS}
            if not all(type is None or isinstance(type, str) for type in types.values()):
                raise TypeError(f"types are {types}")
            return cls(path.parent, int(said["source_bytes"]), types)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadRequestError(f"{path} cannot be used: {error!r}; tune the model again") from None

    def file(self, work: str) -> Path | None:
        """Return the path of the file for a kind of work; None for the source as it is."""
        type = self.types[work]
        return self.directory / f"{type}.gguf" if type else None

    def write(self, found: Mapping[str, Any]) -> None:
        """Write the choice and the measurements behind it; the file appears whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        content = {"source_bytes": self.source_bytes, "types": dict(self.types), **found}
        with whole_file(self.directory / _FILE) as file:
            json.dump(content, file, indent=1)


def tuned_directory(home: Path, model: KnownModel) -> Path:
    """Return the directory of a model's choice, which is the same for all types of the model."""
    if Path(model.name).expanduser().exists() and model.path:
        return home / "tuned" / split_type(model.path.stem)[0]
    return home / "tuned" / split_type(model.name.partition(":")[0])[0]


def forget(home: Path, model: KnownModel) -> bool:
    """Remove a model's choice and its files; return whether there was one."""
    directory = tuned_directory(home, model)
    if not directory.is_dir():
        return False
    shutil.rmtree(directory)
    return True
