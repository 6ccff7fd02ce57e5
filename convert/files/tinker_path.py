"""Tinker's paths, ``tinker://RUN/sampler_weights/NAME``, and their places in a models directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from convert.errors import ConversionError

SCHEME = "tinker://"
_HOME, _KIND = "tinker", "sampler_weights"
_LONGEST = 200  # bytes of a directory's name, below the 255 that file systems take


@dataclass(frozen=True, slots=True)
class TinkerPath:
    """A checkpoint that Tinker saved for sampling.

    Attributes:
        run: the training run's id, such as ``0034d8c9-0a88-52a9-b2b7-bce7cb1e6fef:train:0``.
        name: the checkpoint's.
    """

    run: str
    name: str

    @classmethod
    def parse(cls, text: str) -> TinkerPath:
        """Read one.

        Raises:
            ConversionError: it is not of this form, is a training checkpoint's, or has a part that
                cannot be the name of a directory.
        """
        parts = text.removeprefix(SCHEME).split("/")
        if not text.startswith(SCHEME) or len(parts) != 3:
            raise ConversionError(f"{text!r} is not of the form tinker://RUN/{_KIND}/NAME")
        run, kind, name = parts
        if kind == "weights":
            raise ConversionError(
                f"{text!r} is a training checkpoint, which is not for sampling; a {_KIND} path of the "
                "same run is needed (save_weights_for_sampler makes one)"
            )
        if kind != _KIND:
            raise ConversionError(f"{text!r} has {kind!r} where {_KIND} is expected")
        for part in (run, name):
            if problem := _problem(part):
                raise ConversionError(f"{text!r} is refused: its part {part!r} {problem}")
        return cls(run, name)

    @classmethod
    def of(cls, directory: Path, home: Path) -> TinkerPath | None:
        """Return the Tinker path that a directory below ``home`` belongs to, or None."""
        parts = directory.relative_to(home).parts
        if len(parts) != 4 or parts[0] != _HOME or parts[2] != _KIND:
            return None
        path = cls(unquote(parts[1]), unquote(parts[3]))
        return path if path.below(home) == directory else None

    def below(self, home: Path) -> Path:
        """Return its directory: ``tinker/RUN/sampler_weights/NAME`` below ``home``, a models directory.

        In RUN and NAME, all but letters, digits and ``_.-~`` is percent-encoded, and so are dots at
        their ends: ``:`` and the like are not for every file system.
        """
        return home / _HOME / _encoded(self.run) / _KIND / _encoded(self.name)

    def __str__(self) -> str:
        return f"{SCHEME}{self.run}/{_KIND}/{self.name}"


def checkpoint_directories(home: Path) -> list[Path]:
    """Return the directories of all checkpoints below a models directory."""
    return sorted(
        path
        for path in home.glob(f"{_HOME}/*/{_KIND}/*")
        if path.is_dir() and TinkerPath.of(path, home) is not None
    )


def _problem(part: str) -> str | None:
    if part in ("", ".", ".."):
        return "is no name"
    if "\\" in part or not part.isprintable():
        return "has a backslash or a character that cannot be printed"
    if len(_encoded(part)) > _LONGEST:
        return f"is longer than {_LONGEST} bytes"
    return None


def _encoded(part: str) -> str:
    encoded = quote(part, safe="")
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    return encoded[:-1] + "%2E" if encoded.endswith(".") else encoded
