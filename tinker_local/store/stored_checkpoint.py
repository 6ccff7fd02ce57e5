"""StoredCheckpoint: the files that a ``tinker://`` path stands for on this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import convert
from convert.errors import ConversionError
from convert.files.hashes import read_hashes, record_hashes
from convert.files.json_file import read_json_if_any
from convert.files.lock import locked
from convert.files.models_directory import CHECKPOINT_FILE
from convert.files.tinker_path import TinkerPath, checkpoint_directories
from convert.progress import shown_progress
from tinker_local.errors import BadRequestError, NotFoundError

CONFIG = "adapter_config.json"
ARCHIVES = ("*.tar", "*.tar.gz", "*.tgz")


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A directory of the store: ``tinker/RUN/sampler_weights/NAME``.

    The directory has a GGUF file, or the downloaded checkpoint that the GGUF file is made from, as an
    archive or unpacked. An unpacked download may also lie in the store's own directory, under the name
    that ``tinker checkpoint download`` gives it: ``RUN_sampler_weights_NAME``.

    Attributes:
        path: its path on Tinker.
        home: the store's directory.
    """

    path: TinkerPath
    home: Path

    @classmethod
    def find(cls, path: str, home: Path) -> StoredCheckpoint:
        """Return the checkpoint for a path.

        Raises:
            BadRequestError: the path is malformed, or is not a path of weights for sampling.
            NotFoundError: it is not in the store; the message says how to bring it there.
        """
        try:
            found = cls(TinkerPath.parse(path), home)
        except ConversionError as error:
            raise BadRequestError(str(error)) from None
        if found.is_there:
            return found
        others = ", ".join(str(other.path) for other in cls.all(home)) or "none"
        raise NotFoundError(
            f"{path} is not on this machine: there is no {found.directory} with a GGUF file, an archive or "
            f"an unpacked download, and no {found.download}. On a machine with Tinker's key, `tinker "
            f"checkpoint download {path}` fetches it; then `tinker-local convert DOWNLOADED --as {path}` "
            f"puts it here. Checkpoints here: {others}"
        )

    @classmethod
    def all(cls, home: Path) -> list[StoredCheckpoint]:
        """Return the checkpoints in the store's ``tinker`` directory that have files."""
        paths = (TinkerPath.of(directory, home) for directory in checkpoint_directories(home))
        found = [cls(path, home) for path in paths if path]
        return [checkpoint for checkpoint in found if checkpoint.is_there]

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return self.path.below(self.home)

    @property
    def download(self) -> Path:
        """Where ``tinker checkpoint download --output HOME`` unpacks it."""
        return self.home / str(self.path).removeprefix("tinker://").replace("/", "_")

    @property
    def gguf(self) -> Path | None:
        """Its GGUF file, None if it is not converted yet."""
        path = self.directory / CHECKPOINT_FILE
        return path if path.is_file() else None

    @property
    def is_there(self) -> bool:
        """Whether there is a GGUF file, or a download to convert."""
        return bool(self.gguf or self._archives or self._unpacked)

    @property
    def source(self) -> Path | None:
        """The download that it can be converted from: a directory or an archive.

        Raises:
            BadRequestError: there are several archives.
        """
        archives = self._archives
        if len(archives) > 1 and not self._unpacked:
            raise BadRequestError(
                f"{self.directory} has several archives, {', '.join(path.name for path in archives)}; "
                "remove all but the right one"
            )
        return next(iter((*self._unpacked, *archives)), None)

    @property
    def _unpacked(self) -> list[Path]:
        return [path for path in (self.directory, self.download) if (path / CONFIG).is_file()]

    @property
    def _archives(self) -> list[Path]:
        return sorted(path for pattern in ARCHIVES for path in self.directory.glob(pattern))

    def trained_on(self) -> str | None:
        """Return its base's name as its settings give it, else None. An archive is unpacked to read them.

        Raises:
            BadRequestError: the settings or the archive are malformed.
        """
        source = self.source
        if source is None:
            return None
        try:
            if source.is_dir():
                return _base_in(source)
            from convert.adapters.archive import unpacked  # imports the converter

            with unpacked(source, self.directory) as directory:
                return _base_in(directory)
        except ConversionError as error:
            raise BadRequestError(str(error)) from None

    def converted(self, base: Path) -> Path:
        """Return the GGUF file, converting if need be; of several processes one converts, others wait.

        Args:
            base: the model it goes on.

        Raises:
            BadRequestError: it cannot be converted, or there is nothing to convert.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with locked(self.directory, on_wait=self._say_waiting):
                return self.gguf or self._convert(base)
        except ConversionError as error:
            raise BadRequestError(f"{self.path} cannot be converted: {error}") from error
        except OSError as error:
            raise BadRequestError(f"{self.path} cannot be converted: {error}") from error

    def _convert(self, base: Path) -> Path:
        source = self.source
        if source is None:
            raise ConversionError(f"{self.directory} no longer holds a checkpoint")
        with shown_progress(f"Converting {self.path}") as on_progress:
            made: Path = convert.convert_adapter(
                source, base, self.directory / CHECKPOINT_FILE, on_progress=on_progress
            )
        if read_hashes(made) is None:  # this store is not the usual models directory
            record_hashes([made])
        return made

    def _say_waiting(self) -> None:
        if sys.stderr.isatty():
            print(f"{self.path} is being converted by another process", file=sys.stderr)


def _base_in(directory: Path) -> str | None:
    name = read_json_if_any(directory / CONFIG).get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None
