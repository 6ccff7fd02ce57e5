"""The file that a batch writes, and how a run finds its place in it again.

Each line begins with the number and all of the content of the line of the input that it answers, so that
an interrupted output says by itself how far it is and whether it belongs to an input. Beside
``OUT.jsonl`` lies ``OUT.jsonl.settings``, which says how its lines were made. Lines are written whole
and in order; what a crash left of the last ones is cut off and made again.
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

_SYNC = 2.0  # seconds between syncs: as much is made again after a power cut
_SEED_BITS = 53


class Output(Protocol):
    """Where lines go.

    Attributes:
        n_done: lines that are there.
        n_failed: of them, those with an error.
        seed: of the run.
    """

    n_done: int
    n_failed: int
    seed: int

    def resume(self, items: Iterator[Item]) -> None:
        """Take the items from ``items`` that are answered already."""

    def write(self, line: bytes) -> None:
        """Write the next line."""

    def close(self) -> None:
        """Bring all that was written to where it belongs."""


class Stream:
    """Standard output, a pipe or a device: each run writes all of its lines.

    Args:
        stream: where they go.
        seed: the run's; None draws one.
    """

    def __init__(self, stream: BinaryIO, seed: int | None) -> None:
        self.n_done = self.n_failed = 0
        self.seed = secrets.randbits(_SEED_BITS) if seed is None else seed
        self._stream = stream

    def resume(self, items: Iterator[Item]) -> None:
        """Do nothing: nothing is there."""

    def write(self, line: bytes) -> None:
        """Write the next line."""
        self._stream.write(line)
        self._stream.flush()

    def close(self) -> None:
        """Flush it."""
        self._stream.flush()


class OutputFile:
    """A file, which an interrupted run left or which is new.

    Args:
        path: the file.
        settings: how its lines are made.
        seed: the run's; None goes on with that of the run that began the file, or draws one.
        force: begin again, whatever is there.

    Raises:
        BadRequestError: there is something else, it was made with other settings, another process writes
            it, or the place cannot be written to.
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
        self.seed = self._settle(settings)
        self._file = self.path.open("ab")
        _sync_directory(self.path.parent)

    def resume(self, items: Iterator[Item]) -> None:
        """Take the items that are answered already; cut off what is left of an unfinished line.

        Raises:
            BadRequestError: the file is the output of another input.
        """
        try:
            end = self._walk(items)
            if end < self.path.stat().st_size:
                self._file.truncate(end)
                self._sync()
        except OSError as error:
            raise _refusal(self.path, error) from error

    def write(self, line: bytes) -> None:
        """Write the next line.

        Raises:
            BadRequestError: the disk is full, or gone.
        """
        try:
            self._file.write(line)
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC:
                self._sync()
        except OSError as error:
            raise _refusal(self.path, error) from error

    def close(self) -> None:
        """Bring it to the disk, and let others write it."""
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

    def _settle(self, settings: dict[str, Any]) -> int:
        """Return the run's seed; note the settings if it begins, compare them if it goes on."""
        if self.path.exists() and self.path.stat().st_size:
            return self._compare(settings)
        seed = settings["seed"]
        drawn: int = secrets.randbits(_SEED_BITS) if seed is None else seed
        about = f"how {self.path.name} is made; tinker-local goes on with it where this is the same"
        _write_whole(self._settings_path, {"about": about, "settings": settings, "drawn_seed": drawn})
        return drawn

    def _compare(self, settings: dict[str, Any]) -> int:
        there = _read_settings(self._settings_path, self.path)
        before = there["settings"]
        now = json.loads(json.dumps(settings))
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise BadRequestError(
                    f"{self.path} was begun with {name} = {before.get(name)!r}, and this run has "
                    f"{now.get(name)!r}; say the same, write elsewhere, or begin it again with --force"
                )
        return int(there["drawn_seed"])

    def _walk(self, items: Iterator[Item]) -> int:
        """Compare the file's lines with the items; return how many bytes of it are good."""
        end, last = 0, b""
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"}\n") or b"\0" in line:
                    if line.endswith(b"\n") and b"\0" not in line:  # no crash leaves that
                        raise self._other(f"its line {self.n_done + 1:,} is none that this writes")
                    break
                self._check(line, next(items, None))
                end, last = end + len(line), line
                self.n_done += 1
        if last:
            try:
                json.loads(last)
            except ValueError:
                raise self._other(f"its line {self.n_done} is broken") from None
        return end

    def _check(self, line: bytes, item: Item | None) -> None:
        if item is None:
            raise self._other(f"it has more lines than this input, which has {self.n_done:,}")
        if not item.is_begun_by(line):
            raise self._other(
                f"its line {self.n_done + 1:,} is not the answer to line {item.number:,} of the input"
            )
        self.n_failed += item.is_failed_in(line)

    def _other(self, why: str) -> BadRequestError:
        return BadRequestError(
            f"{self.path} is not the output of this input: {why}. Write to another file, or begin it again "
            "with --force"
        )


def _read_settings(path: Path, output: Path) -> dict[str, Any]:
    try:
        there = json.loads(path.read_bytes())
        if isinstance(there["settings"], dict) and isinstance(there["drawn_seed"], int):
            return dict(there)
    except FileNotFoundError:
        raise BadRequestError(
            f"{output} is there already, and there is no {path.name} beside it, so it is not known how it "
            "was made; write to another file, or replace it with --force"
        ) from None
    except (KeyError, TypeError, ValueError):
        pass
    raise BadRequestError(f"{path} is damaged; begin {output} again with --force")


def _write_whole(path: Path, content: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.part")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":  # where they cannot be opened
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(path: Path, error: OSError) -> BadRequestError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BadRequestError(f"the disk of {path} is full; make room, and the same command goes on")
    return BadRequestError(f"{path} cannot be written: {error.strerror or error}")
