"""KnownModel: a model that can be asked for by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convert.files.mmproj import PREFIX, is_mmproj
from convert.files.parts import parts_of
from convert.gguf.file_types import inexactness, split_type
from convert.gguf.mmproj import find_mmproj
from tinker_local.errors import BadRequestError, NotFoundError
from tinker_local.gguf.file import check_gguf

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-\d{5}")


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that can be asked for by name, and its file if it is here.

    Attributes:
        name, aliases: the names it answers to.
        path: its GGUF file, or the first part; None if it is not here.
        license: from the catalogue.
        extra: the extra of tinker-local that installs it.
        type: the number format that ends the file's name.
        how_to_get: the command that installs it, or fetches and converts it.
    """

    name: str
    aliases: tuple[str, ...] = ()
    path: Path | None = None
    license: str | None = None
    extra: str | None = None
    type: str | None = None
    how_to_get: str | None = None

    @classmethod
    def of_file(cls, path: Path, organisation: str = "") -> KnownModel | None:
        """Return the model of a file; None for a part that is not the first."""
        part = _PART.fullmatch(path.stem)
        if part and int(part["number"]) != 1:  # llama.cpp opens the others itself
            return None
        stem = part["stem"] if part else path.stem
        plain, type = split_type(stem)
        names = [stem, plain]
        if organisation:
            names = [f"{organisation}/{stem}", stem, f"{organisation}/{plain}", plain]
        name, *aliases = dict.fromkeys(names)
        return cls(name, tuple(aliases), path, type=type)

    @property
    def files(self) -> list[Path]:
        """Its file, or its parts, then its mmproj file if it reads images; none if it is not here."""
        return [*parts_of(self.path), *filter(None, [find_mmproj(self.path)])] if self.path else []

    def require(self) -> Path:
        """Return its file, once it is seen to be a GGUF file.

        Raises:
            NotFoundError: there is no file.
            BadRequestError: it is not a GGUF file.
        """
        if self.path is None:
            raise NotFoundError(f"the model {self.name} is not on this machine")
        return check_gguf(self.path)

    @property
    def n_bytes(self) -> int:
        """Bytes of its files; a link that leads nowhere has none."""
        return sum(path.stat().st_size for path in self.files if path.exists())

    def answers_to(self, name: str) -> bool:
        """Whether ``name`` means this model; case does not matter."""
        return name.casefold() in {other.casefold() for other in (self.name, *self.aliases)}

    @property
    def exactness(self) -> tuple[int, int]:
        """Larger for more exact types of a model."""
        worse, better = inexactness(self.type) if self.type else (-1, -1)
        return -worse, -better


def choose(name: str, models: Sequence[KnownModel]) -> KnownModel:
    """Return the model of the most exact type, of those that answer to a name.

    Raises:
        BadRequestError: they are of several organisations, and the name has no organisation.
    """
    named = [model for model in models if model.name.casefold() == name.casefold()]
    places = {model.path and model.path.parent for model in models}
    if len(places) > 1 and not named:
        raise BadRequestError(
            f"{name!r} could be any of {', '.join(model.name for model in models)}; give the whole name"
        )
    return max(named or models, key=lambda model: model.exactness)


def part_name(path: Path, stem: str) -> str:
    """Return the name of a model's file, a part or its mmproj file, once the model is called ``stem``."""
    if is_mmproj(path):
        return f"{PREFIX}-{stem}.gguf"
    part = _PART.fullmatch(path.stem)
    return f"{stem}{path.stem.removeprefix(part['stem']) if part else ''}.gguf"
