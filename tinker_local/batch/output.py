"""The output of a batch run, and how a later run continues an interrupted one.

Each line of the output begins with the number and the whole content of the input line that it answers. Two
questions can thus be answered from the file alone: does it belong to this input, and how far did it come?
How its lines were made (model, parameters, seed) is noted beside ``OUT.jsonl`` in ``OUT.jsonl.settings``.

A run opens an output file in this order:

1. lock it, so that two runs never write the same file;
2. new or empty: write the settings; otherwise compare them with this run's (``_check_settings``);
3. compare the lines that are there with the input, and cut off what a crash left unfinished (``resume``);
4. append the missing lines, whole and in order, and sync them to the disk every two seconds.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from filelock import FileLock, Timeout

from tinker_local.batch.item import Item
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
        self._settings_path = path.with_name(f"{path.name}.settings")
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BadRequestError(f"another process is writing {path}; wait for it, or end it") from None
        except OSError as error:
            raise _refusal(path, error) from error
        with ExitStack() as failed:
            failed.callback(self._lock.release)
            try:
                self._begin({**settings, "seed": seed}, force)
            except OSError as error:
                raise _refusal(path, error) from error
            failed.pop_all()
        self._synced = time.monotonic()

    def _begin(self, settings: dict[str, Any], force: bool) -> None:
        if force:
            self.path.unlink(missing_ok=True)
        self.seed = self._check_settings(settings)
        self._file = self.path.open("ab")
        _sync_directory(self.path.parent)

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
            raise _refusal(self.path, error) from error

    def write(self, line: bytes) -> None:
        """Append the next line; sync to the disk now and then.

        Raises:
            BadRequestError: the disk is full or not available.
        """
        try:
            self._file.write(line)
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC:
                self._sync()
        except OSError as error:
            raise _refusal(self.path, error) from error

    def close(self) -> None:
        """Sync the file to the disk and release its lock."""
        try:
            self._sync()
            self._file.close()
        except OSError as error:
            raise _refusal(self.path, error) from error
        finally:
            self._lock.release()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _check_settings(self, settings: dict[str, Any]) -> int:
        """Return the seed of the run: note the settings of a new file, compare those of an old one."""
        if self.path.exists() and self.path.stat().st_size:
            return self._compare_settings(settings)
        seed = settings["seed"]
        drawn: int = secrets.randbits(_SEED_BITS) if seed is None else seed
        about = f"how {self.path.name} was made; tinker-local continues it only with the same settings"
        _write_whole(self._settings_path, {"about": about, "settings": settings, "drawn_seed": drawn})
        return drawn

    def _compare_settings(self, settings: dict[str, Any]) -> int:
        there = _read_settings(self._settings_path, self.path)
        before = there["settings"]
        now = json.loads(json.dumps(settings))  # a tuple reads back as a list
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise BadRequestError(
                    f"{self.path} was begun with {name} = {before.get(name)!r}, but this run has "
                    f"{now.get(name)!r}; keep the value, write to another file, or start over with --force"
                )
        return int(there["drawn_seed"])

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


def _read_settings(path: Path, output: Path) -> dict[str, Any]:
    try:
        there = json.loads(path.read_bytes())
        if isinstance(there["settings"], dict) and isinstance(there["drawn_seed"], int):
            return dict(there)
    except FileNotFoundError:
        raise BadRequestError(
            f"{output} exists, but not {path.name}, which says how it was made; write to another file, or "
            "start over with --force"
        ) from None
    except (KeyError, TypeError, ValueError):
        pass
    raise BadRequestError(f"{path} is damaged; start {output} over with --force")


def _write_whole(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON so that a crash leaves the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """Make a new file's name survive a power cut."""
    if os.name == "nt":  # Windows cannot open a directory
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(path: Path, error: OSError) -> BadRequestError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BadRequestError(
            f"the disk of {path} is full; free some space, then run the same command again to continue"
        )
    return BadRequestError(f"{path} cannot be written: {error.strerror or error}")
