"""StoreKeeper: adds files to the store, removes them, and verifies their hashes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from convert.errors import ConversionError
from convert.files.directory import find_file
from convert.files.hashes import hashes_path, read_hashes, wrong_files
from convert.files.lock import locked
from convert.files.mmproj import PREFIX, is_mmproj
from convert.files.models_directory import CHECKPOINT_FILE, checked_name
from convert.files.publishing import check_space, publishing
from convert.files.tinker_path import SCHEME, TinkerPath, checkpoint_directories
from convert.files.workplace import sweep, workplace
from tinker_local.errors import BadRequestError, NotFoundError, TinkerError
from tinker_local.gguf.file import check_gguf, read_head
from tinker_local.store.known_model import KnownModel, part_name
from tinker_local.store.model_store import ModelStore
from tinker_local.store.stored_checkpoint import ARCHIVES, CONFIG, StoredCheckpoint

OnProgress = Callable[[int, int], None]
"""Called now and then with the bytes done and the bytes in all."""

_CHUNK = 1 << 22  # bytes copied at once


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of verifying an entry.

    Attributes:
        name: the entry's.
        problems: what is wrong, a line each; empty if nothing is.
        is_recorded: whether there were hashes to compare with.
    """

    name: str
    problems: tuple[str, ...]
    is_recorded: bool


class StoreKeeper:
    """Changes and checks a store's files. Several processes may do so at once."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._home = store.directory

    def add(
        self,
        source: Path,
        name: str | None = None,
        *,
        link: bool = False,
        force: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Path:
        """Put a GGUF file (the first of its parts) into the store, or a downloaded checkpoint.

        The entry appears once it is whole and on disk, with its hashes recorded.

        Args:
            source: the file; its mmproj file comes along. For a checkpoint also an archive or a directory
                as Tinker hands them out, which is converted when it is first used.
            name: ``NAME``, ``ORG/NAME`` or ``tinker://RUN/sampler_weights/NAME``; None for the file's own.
            link: make a symbolic link instead of a copy.
            force: replace an entry of this name.
            on_progress: is called with bytes copied and bytes in all.

        Returns:
            The file in the store, its first part, or the checkpoint's directory.

        Raises:
            NotFoundError: there is no source.
            BadRequestError: the source is unusable, the name is impossible or taken, or the disk is full.
        """
        with _refusals():
            if name and name.startswith(SCHEME):
                directory = TinkerPath.parse(name).below(self._home)
                if source.is_dir() or any(map(source.match, ARCHIVES)):
                    return self._add_download(source, directory, link, force)
                return self._land(check_gguf(source), directory / CHECKPOINT_FILE, link, force, on_progress)
            model = KnownModel.of_file(check_gguf(source))
            if is_mmproj(source):
                raise BadRequestError(
                    f"{source} is the vision tower of a model; add the model's file, with the tower beside "
                    f"it as {PREFIX}-NAME.gguf for NAME.gguf"
                )
            if model is None:
                raise BadRequestError(f"{source} is not the first part of a model; give the first part")
            target = self._home / f"{checked_name(name or model.name)}.gguf"
            return self._land(source, target, link, force, on_progress)

    def remove(self, name: str) -> list[Path]:
        """Remove an entry, or a checkpoint by its ``tinker://`` path; return the removed files.

        Of a link, only the link is removed.

        Raises:
            NotFoundError: the store has no such entry.
            BadRequestError: the name means several entries, or a file outside the store.
        """
        with _refusals():
            if name.startswith(SCHEME):
                return self._remove_checkpoint(StoredCheckpoint.find(name, self._home))
            model = self.entry(name)
            hashes = [hashes_path(path) for path in model.files[:1]]
            gone = [*model.files, *filter(Path.exists, hashes)]  # what is damaged, too
            with locked(self._home):
                for path in gone:
                    path.unlink(missing_ok=True)
            return gone

    def entry(self, name: str) -> KnownModel:
        """Return the one file of the store's own directory that a name means; for ``remove``, see there."""
        found = [model for model in self._store.files() if model.answers_to(name)]
        exact = [model for model in found if model.name.casefold() == name.casefold()]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if found:
            raise BadRequestError(
                f"{name!r} means several: {', '.join(model.name for model in found)}; give the whole name"
            )
        if elsewhere := self._store.find(name):
            raise BadRequestError(
                f"{name!r} is {elsewhere[0].path}, outside of {self._home}; it belongs to the package or "
                "cache that it came with"
            )
        present = ", ".join(model.name for model in self._store.files()) or "nothing"
        raise NotFoundError(f"there is no {name!r} in {self._home}; there is {present}")

    def verify(self, name: str | None = None, on_progress: OnProgress | None = None) -> Iterator[Verdict]:
        """Compare entries with the hashes recorded when they came; None: all of them.

        Temporary files of killed processes are removed.

        Raises:
            NotFoundError, BadRequestError: as ``entry``.
        """
        for directory in (self._home, *self._home.glob("*/"), *checkpoint_directories(self._home)):
            sweep(directory)
            sweep(directory.parent)
        entries = list(self._entries(name))
        total = sum(path.stat().st_size for _, files in entries for path in files)
        done = 0

        def count(n: int) -> None:
            nonlocal done
            done += n
            if on_progress:
                on_progress(done, total)

        for entry, files in entries:
            yield _verify(entry, files, count)

    def _entries(self, name: str | None) -> Iterator[tuple[str, list[Path]]]:
        if name is None:
            yield from ((model.name, model.files) for model in self._store.files())
        elif not name.startswith(SCHEME):
            model = self.entry(name)
            yield model.name, model.files
            return
        checkpoints = (
            [StoredCheckpoint.find(name, self._home)] if name else StoredCheckpoint.all(self._home)
        )
        for checkpoint in checkpoints:
            if checkpoint.gguf:
                yield str(checkpoint.path), KnownModel(str(checkpoint.path), path=checkpoint.gguf).files

    def _land(
        self, source: Path, target: Path, link: bool, force: bool, progress: OnProgress | None
    ) -> Path:
        files = KnownModel(target.stem, path=source).files
        names = [part_name(path, target.stem) for path in files]
        total, done = sum(path.stat().st_size for path in files), 0
        with publishing(target, force=force, home=self._home) as place:
            if not link:
                check_space(place, total)
            for path, name in zip(files, names, strict=True):
                if link:
                    (place / name).symlink_to(path.resolve())
                    continue
                for n in _copy(path, place / name):
                    done += n
                    if progress:
                        progress(done, total)
        return target.with_name(names[0])

    def _add_download(self, source: Path, directory: Path, link: bool, force: bool) -> Path:
        if link:
            raise BadRequestError(
                f"{source} cannot be linked, since it is converted on first use; leave out the link"
            )
        files = [source] if source.is_file() else _downloaded(source)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with workplace(directory.parent) as place:
            made = place / "checkpoint"
            made.mkdir()
            for path in files:
                for _ in _copy(path, made / path.name, sync=True):
                    pass
            with locked(self._home):
                if directory.exists():
                    if not force:
                        raise BadRequestError(f"{directory} is there already; --force replaces it")
                    directory.rename(place / "old")
                made.rename(directory)
        return directory

    def _remove_checkpoint(self, checkpoint: StoredCheckpoint) -> list[Path]:
        gone = [path for path in (checkpoint.directory, checkpoint.download) if path.is_dir()]
        for path in gone:
            with workplace(path.parent) as place, locked(self._home):
                path.rename(place / "old")
        return gone


def _downloaded(directory: Path) -> list[Path]:
    files = []
    for name in (CONFIG, "adapter_model.safetensors"):
        if not (path := find_file(directory, name)):
            raise BadRequestError(f"{directory} is not a checkpoint: it has no {name}")
        files.append(path)
    return files


def _verify(name: str, files: list[Path], count: Callable[[int], None]) -> Verdict:
    try:
        read_head(files[0])
        recorded = read_hashes(files[0])
        problems = wrong_files(files, recorded, count) if recorded else []
    except (TinkerError, ConversionError) as error:
        return Verdict(name, (str(error),), is_recorded=True)
    except OSError as error:
        return Verdict(name, (f"{error.filename or files[0]} cannot be read: {error.strerror}",), True)
    return Verdict(name, tuple(problems), recorded is not None)


def _copy(source: Path, target: Path, *, sync: bool = False) -> Iterator[int]:
    """Copy a file, yielding the bytes of each piece."""
    with source.open("rb") as reader, target.open("xb") as writer:
        while piece := reader.read(_CHUNK):
            writer.write(piece)
            yield len(piece)
        if sync:
            writer.flush()
            os.fsync(writer.fileno())


@contextmanager
def _refusals() -> Iterator[None]:
    """Raise errors of the converter and of the file system as BadRequestError."""
    try:
        yield
    except ConversionError as error:
        raise BadRequestError(str(error)) from error
    except OSError as error:
        raise BadRequestError(f"the models directory cannot be changed: {error}") from error
