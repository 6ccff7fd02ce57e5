"""Inputs of a job: JSON lines or Parquet, on this machine or in a cloud, cut into windows.

A window is a range of lines that one task reads, wherever it runs. Its lines are sorted by their texts. So
those with a common prefix come into the same batch, and the engine's prefix cache serves them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from tinker_local.batch.item import TEXTS
from tinker_local.batch.lines import Line, read_lines
from tinker_local.errors import BadRequestError, NotFoundError

_BYTES, _LINES = 8 << 20, 1 << 15  # most of one window, which a task holds in memory


@dataclass(frozen=True, slots=True)
class Window:
    """A range of lines, of which one at least is not answered yet.

    Attributes:
        start: offset behind the line before the first, in the input's own units.
        before: number of that line; 0 at the beginning.
        end: offset behind the last line.
        last: number of the last line.
        empty: numbers of lines in the range that are empty.
        done: numbers of lines in the range that are answered already.
        n_bytes: length of the others.
    """

    start: int
    before: int
    end: int
    last: int
    empty: frozenset[int]
    done: frozenset[int]
    n_bytes: int

    def __len__(self) -> int:
        return self.last - self.before - len(self.empty) - len(self.done)

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the lines that are not empty."""
        return (number for number in range(self.before + 1, self.last + 1) if number not in self.empty)


class Input(Protocol):
    """An input that can be read from the beginning, and in windows. Instances can be pickled."""

    @property
    def is_local(self) -> bool:
        """Whether only the driver's machine has it for certain."""

    @property
    def size(self) -> int:
        """Length of the input in the units of a line's ``end``."""

    def lines(self) -> Iterator[Line]:
        """Yield all lines that are not empty."""

    def read(self, start: int, before: int, end: int) -> Iterator[Line]:
        """Yield the lines of a window."""


@dataclass(frozen=True)
class _File:
    """A file, which may be a URI that pyarrow opens."""

    path: str

    @property
    def is_local(self) -> bool:
        """Whether only the driver's machine has it for certain."""
        return "://" not in self.path


class JsonLines(_File):
    """A file of JSON lines; offsets are bytes."""

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return Path(self.path).stat().st_size if self.is_local else _cloud_file(self.path).size

    def lines(self) -> Iterator[Line]:
        """Yield all lines that are not empty."""
        with self._open() as file:
            yield from read_lines(file)

    def read(self, start: int, before: int, end: int) -> Iterator[Line]:
        """Yield the lines of a window."""
        with self._open() as file:
            file.seek(start)
            yield from read_lines(io.BytesIO(file.read(end - start)), before)

    def _open(self) -> Any:
        if self.is_local:
            return Path(self.path).open("rb")
        return _cloud_file(self.path).open()


class Parquet(_File):
    """A Parquet file; its rows are lines, and offsets count rows. None counts as an absent key."""

    @property
    def size(self) -> int:
        """Number of rows."""
        with self._open() as file:
            return int(file.metadata.num_rows)

    def lines(self) -> Iterator[Line]:
        """Yield all rows as lines."""
        with self._open() as file:
            yield from _row_lines(file.iter_batches(), 0)

    def read(self, start: int, before: int, end: int) -> Iterator[Line]:
        """Yield the rows of a window; only the row groups that it touches are read."""
        with self._open() as file:
            first = 0
            for group in range(file.num_row_groups):
                n_rows = file.metadata.row_group(group).num_rows
                if first < end and start < first + n_rows:
                    for line in _row_lines(file.iter_batches(row_groups=[group]), first):
                        if start < line.number <= end:
                            yield line
                first += n_rows

    def _open(self) -> Any:
        from pyarrow import parquet

        if self.is_local:
            return parquet.ParquetFile(self.path)
        return parquet.ParquetFile(_cloud_file(self.path).open())


def open_input(path: str) -> Input:
    """Return the input at a path or a URI; ``.parquet`` is Parquet, all else are JSON lines.

    Raises:
        NotFoundError: it cannot be read.
    """
    if path == "-":
        raise BadRequestError("a cluster cannot read standard input; write it to a file first")
    if "://" not in path:
        path = str(Path(path).expanduser().resolve())
    found: Input = Parquet(path) if path.endswith(".parquet") else JsonLines(path)
    try:
        found.size  # noqa: B018 (opens it)
    except (OSError, ValueError) as error:
        raise NotFoundError(f"{path} cannot be read: {error}") from None
    return found


def cut(lines: Iterable[Line], start: int, before: int, done: Container[int]) -> Iterator[Window]:
    """Cut lines into windows.

    Args:
        lines: the rest of an input.
        start: offset behind the line before them.
        before: number of that line.
        done: numbers of lines that are answered already.
    """
    held = list[Line]()
    n_bytes = 0
    for line in lines:
        held.append(replace(line, data=b""))
        n_bytes += 0 if line.number in done else len(line.data)
        if n_bytes >= _BYTES or len(held) >= _LINES:
            yield _window(held, start, before, done, n_bytes)
            start, before, held, n_bytes = line.end, line.number, [], 0
    if held:
        yield _window(held, start, before, done, n_bytes)


def _window(lines: Sequence[Line], start: int, before: int, done: Container[int], n_bytes: int) -> Window:
    numbers, last = {line.number for line in lines}, lines[-1]
    empty = frozenset(range(before + 1, last.number + 1)) - numbers
    there = frozenset(number for number in numbers if number in done)
    return Window(start, before, last.end, last.number, empty, there, n_bytes)


def sorted_lines(source: Input, window: Window) -> list[Line]:
    """Return the lines of a window that are not answered yet, those with a common prefix side by side."""
    lines = source.read(window.start, window.before, window.end)
    return sorted((line for line in lines if line.number not in window.done), key=_prefix)


def _prefix(line: Line) -> str:
    """Return a line's images and text, as JSON: lists of tokens and of messages have prefixes then, too."""
    try:
        asked = json.loads(line.data)
        text = next((asked[name] for name in TEXTS if name in asked), None)
        return json.dumps([asked["images"], text] if "images" in asked else text)
    except (ValueError, TypeError, RecursionError):
        return ""  # its answer is an error, wherever it stands


def _row_lines(batches: Iterable[Any], number: int) -> Iterator[Line]:
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            asked = {name: value for name, value in row.items() if value is not None}
            try:
                data = json.dumps(asked).encode()
            except TypeError as error:
                raise BadRequestError(
                    f"row {number:,} cannot be JSON: {error}; leave out that column"
                ) from None
            yield Line(number, data, number)


@dataclass(frozen=True)
class _CloudFile:
    filesystem: Any
    path: str
    size: int

    def open(self) -> Any:
        return self.filesystem.open_input_file(self.path)


def _cloud_file(uri: str) -> _CloudFile:
    from pyarrow.fs import FileSystem, FileType

    filesystem, path = FileSystem.from_uri(uri)
    info = filesystem.get_file_info(path)
    if info.type != FileType.File:
        raise FileNotFoundError("there is no such file")
    return _CloudFile(filesystem, path, info.size)
