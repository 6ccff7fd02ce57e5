"""Publishing results atomically: no final name is seen until all of the file is written and on disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from convert.errors import ConversionError
from convert.files.hashes import hash_file, hashes_path, write_hashes
from convert.files.lock import locked
from convert.files.mmproj import is_mmproj, mmproj_path
from convert.files.models_directory import models_directory
from convert.files.parts import existing, is_whole
from convert.files.sizes import format_bytes
from convert.files.whole_file import sync
from convert.files.workplace import sweep, workplace


@contextmanager
def publishing(output: Path, *, force: bool, home: Path | None = None) -> Iterator[Path]:
    """Yield an empty directory beside ``output``; at the end its files are published as the output.

    The files are synced and renamed, the first part of a model last; an mmproj file keeps its name.
    ``force`` removes older files of the same model, parts and tower included. After an error, the written
    files and the new directories are removed; after a kill, the next run removes them. In a models
    directory (``home``; None: the usual one) hashes are recorded beside the files, and processes that
    publish there take turns.

    Raises:
        ConversionError: there is an output already and no ``force``, or the place cannot be written
            to, or the disk is full.
    """
    home = home or models_directory()
    sweep(output.parent)
    _check_free(output, force)
    try:
        with ExitStack() as made:
            _make_directories(output.parent, made)
            with workplace(output.parent, output.stem) as place:
                yield place
                _publish(place, output, force, home)
            made.pop_all()
    except OSError as error:
        raise ConversionError(_describe(error, output)) from error


def _check_free(output: Path, force: bool) -> None:
    found = existing(output)
    if not force and found and is_whole(found):
        raise ConversionError(f"{found[0]} is there already; --force (force=True) replaces it")
    if output.is_dir():
        raise ConversionError(f"{output} is a directory; the output is a file")


def check_space(directory: Path, n_bytes: int) -> None:
    """Check that a disk has room before work begins.

    Raises:
        ConversionError: says how much is needed and how much is free.
    """
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    if free < n_bytes:
        raise ConversionError(
            f"{directory} has {format_bytes(free)} free, and {format_bytes(n_bytes)} are needed; make "
            "room, or choose another place with --output"
        )


def _make_directories(directory: Path, made: ExitStack) -> None:
    """Make a directory and its parents. Closing ``made`` removes the new ones that are empty."""
    for path in (*reversed(directory.parents), directory):
        if not path.exists():
            path.mkdir()
            made.callback(_remove_if_empty, path)


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _publish(work: Path, output: Path, force: bool, home: Path) -> None:
    """Give the files in ``work`` their final names. A kill at any moment leaves no wrong model."""
    made = sorted(work.glob("*.gguf"), key=lambda path: (is_mmproj(path), path))
    files = {path: output.parent / path.name for path in made}
    if len([path for path in made if not is_mmproj(path)]) == 1:
        files[made[0]] = output
    for path in files:  # a name must not reach the disk before the data does
        sync(path)
    if not output.resolve().is_relative_to(home.resolve()):
        _rename(files, output)
        return
    hashes = work / "hashes"
    write_hashes(hashes, {target.name: hash_file(path) for path, target in files.items()})
    with locked(home):
        _check_free(output, force)  # another process may have published it meanwhile
        hashes_path(output).unlink(missing_ok=True)  # no hash is better than one of another file
        _rename(files, output)
        os.replace(hashes, hashes_path(output))


def _rename(files: Mapping[Path, Path], output: Path) -> None:
    old = {*existing(output), *filter(Path.is_file, [mmproj_path(output)])}
    if len(files) > 1:  # an old first part beside new other parts would pass for a model
        next(iter(files.values())).unlink(missing_ok=True)
        old.discard(next(iter(files.values())))
    for path, target in reversed(list(files.items())):
        os.replace(path, target)
        old.discard(target)
    for path in old:
        path.unlink()
    sync(output.parent)


def _describe(error: OSError, output: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {output.parent} is full; nothing was left there"
    return f"{error.filename or output}: {error.strerror or error}"
