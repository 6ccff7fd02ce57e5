"""The output of a batch run, and how a later run continues an interrupted one.

Each line of the output begins with the number and the whole content of the input line that it answers. Two
questions can thus be answered from the file alone: does it belong to this input, and how far did it come?
How its lines were made (model, parameters, seed) is noted beside ``OUT.jsonl`` in ``OUT.jsonl.settings``.

A run opens an output file in this order:

1. lock it, so that two runs never write the same file;
2. new or empty: write the settings; otherwise compare them with this run's (``settings.py``);
3. compare the lines that are there with the input, and cut off what a crash left unfinished (``resume``);
4. append the missing lines, whole and in order, and sync them to the disk every two seconds;
5. note beside the file that it is complete.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from filelock import FileLock, Timeout

from convert.files.whole_file import sync
from tinker_local.batch.item import Item
from tinker_local.batch.settings import Finish, RunSettings
from tinker_local.errors import BadRequestError

_SYNC = 2.0  # seconds between syncs: a power cut loses at most the lines of this time
_SEED_BITS = 53


class Output(Protocol):
    """A place that the lines of a run are written to, in order.

    Attributes:
        n_done: lines that earlier runs wrote, known after ``resume``.
        n_failed: how many of these have an error.
        seed: seed of the run.
    """

    n_done: int
    n_failed: int
    seed: int

    def resume(self, items: Iterator[Item]) -> None:
        """Consume the items at the beginning of ``items`` that earlier runs answered."""

    def write(self, line: bytes) -> None:
        """Write the next line."""

    def finish(self, last: int) -> None:
        """Note that the whole input was answered, up to the line with the number ``last``."""

    def close(self) -> None:
        """Flush all lines and release the output."""


class OutputStream:
    """Standard output, a pipe or a device: every run writes all lines.

    Args:
        stream: the stream to write to.
        seed: seed of the run; None draws one.
    """

    def __init__(self, stream: BinaryIO, seed: int | None) -> None:
        self.n_done = self.n_failed = 0
        self.seed = secrets.randbits(_SEED_BITS) if seed is None else seed
        self._stream = stream

    def resume(self, items: Iterator[Item]) -> None:
        """Do nothing: a stream has no earlier lines."""

    def write(self, line: bytes) -> None:
        """Write the next line and flush it."""
        self._stream.write(line)
        self._stream.flush()

    def finish(self, last: int) -> None:
        """Do nothing: a stream has nothing beside it."""

    def close(self) -> None:
        """Flush the stream; whoever opened it closes it."""
        self._stream.flush()


class OutputFile:
    """A file on disk: new, or left by an interrupted run that this one continues.

    Args:
        path: the file.
        settings: how its lines are made; must equal those of the run that began the file.
        seed: seed of the run. None takes the seed of the run that began the file, or draws one.
        force: start over, whatever the file holds.

    Raises:
        BadRequestError: the file was made with other settings or by something else, another process
            is writing it, or the disk cannot be written to.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], seed: int | None, *, force: bool = False
    ) -> None:
        self.path = path
        self.n_done = self.n_failed = 0
        self._n_written = 0
        self._lock = lock(path)
        with ExitStack() as failed:
            failed.callback(self._lock.release)
            try:
                self._begin({**settings, "seed": seed}, force)
            except OSError as error:
                raise refusal(path, error) from error
            failed.pop_all()
        self._synced = time.monotonic()

    def _begin(self, settings: dict[str, Any], force: bool) -> None:
        if force:
            self.path.unlink(missing_ok=True)
        self._settings = self._check_settings(settings)
        self.seed = self._settings.seed
        self._file = self.path.open("ab")
        sync(self.path.parent)

    def resume(self, items: Iterator[Item]) -> None:
        """Consume the items that the file answers already; cut off an unfinished last line.

        Raises:
            BadRequestError: the file is the output of another input.
        """
        try:
            end = self._compare_lines(items)
            if end < self.path.stat().st_size:
                self._file.truncate(end)
                self._sync()
        except OSError as error:
            raise refusal(self.path, error) from error

    def write(self, line: bytes) -> None:
        """Append the next line; sync to the disk now and then.

        Raises:
            BadRequestError: the disk is full or not available.
        """
        try:
            self._file.write(line)
            self._file.flush()
            self._n_written += 1
            if time.monotonic() - self._synced > _SYNC:
                self._sync()
        except OSError as error:
            raise refusal(self.path, error) from error

    def finish(self, last: int) -> None:
        """Sync the file, then note beside it that it is complete."""
        try:
            self._sync()
            finish = Finish(self.n_done + self._n_written, last)
            replace(self._settings, finish=finish).write(self.path)
        except OSError as error:
            raise refusal(self.path, error) from error

    def close(self) -> None:
        """Sync the file to the disk and release its lock."""
        try:
            self._sync()
            self._file.close()
        except OSError as error:
            raise refusal(self.path, error) from error
        finally:
            self._lock.release()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _check_settings(self, given: dict[str, Any]) -> RunSettings:
        """Return the run's settings: note those of a new file, compare those of an old one."""
        if self.path.exists() and self.path.stat().st_size:
            before = RunSettings.read(self.path)
            before.compare(self.path, given)
            return before
        seed = given["seed"]
        settings = RunSettings(given, secrets.randbits(_SEED_BITS) if seed is None else seed)
        settings.write(self.path)
        return settings

    def _compare_lines(self, items: Iterator[Item]) -> int:
        """Compare the file's lines with the items; return the offset behind the last good line.

        A crash can leave a last line without its end, or with zero bytes where data never reached the disk.
        Everything from there on is written again. A complete line in another form was written by something
        else, and is an error.
        """
        end, last = 0, b""
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"}\n") or b"\0" in line:
                    if line.endswith(b"\n") and b"\0" not in line:
                        raise self._mismatch(f"tinker-local did not write its line {self.n_done + 1:,}")
                    break
                self._compare_line(line, next(items, None))
                end, last = end + len(line), line
                self.n_done += 1
        if last:
            try:
                json.loads(last)
            except ValueError:
                raise self._mismatch(f"its line {self.n_done:,} is not valid JSON") from None
        return end

    def _compare_line(self, line: bytes, item: Item | None) -> None:
        """Check that a line of the file answers the item; count it if it has an error."""
        if item is None:
            raise self._mismatch(f"it has more lines than this input, which has {self.n_done:,}")
        if not item.is_begun_by(line):
            raise self._mismatch(
                f"its line {self.n_done + 1:,} is not the answer to line {item.number:,} of the input"
            )
        self.n_failed += item.is_failed_in(line)

    def _mismatch(self, why: str) -> BadRequestError:
        return BadRequestError(
            f"{self.path} is not the output of this input: {why}. Write to another file, or start over "
            "with --force"
        )


def lock(path: Path) -> FileLock:
    """Lock an output, so that one process at a time writes it.

    Raises:
        BadRequestError: another process has the lock, or the directory cannot be written to.
    """
    held = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise BadRequestError(f"another process is writing {path}; wait for it, or end it") from None
    except OSError as error:
        raise refusal(path, error) from error
    return held


def refusal(path: Path, error: OSError) -> BadRequestError:
    """Return the error of an output that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BadRequestError(
            f"the disk of {path} is full; free some space, then run the same command again to continue"
        )
    return BadRequestError(f"{path} cannot be written: {error.strerror or error}")
