"""AnswersAhead: answers that came before their turn, kept in a file beside the output.

A cluster answers in any order, and the output is in the input's order. An answer waits in the file
``.OUT.jsonl.ahead`` until all earlier ones are written. A job that was killed finds its answers there. Only
offsets are in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from convert.files.whole_file import whole_path
from tinker_local.batch.item import number_in

_MOST_WASTE = 64 << 20
"""Bytes of answers that are written already, from which the file is made anew."""


class AnswersAhead:
    """Lines of an output, by their numbers, on disk.

    Args:
        output: the output that the lines are for.
    """

    def __init__(self, output: Path) -> None:
        self._path = output.with_name(f".{output.name}.ahead")
        self._places: dict[int, tuple[int, int]] = {}  # line number -> offset, length
        self._file = self._path.open("a+b")
        self._size = self._n_live = 0
        self._load()

    def _load(self) -> None:
        """Find the lines that an earlier run left; cut off what a crash left of the last one."""
        self._file.seek(0)
        for line in self._file:
            number = number_in(line)
            if number is None or b"\0" in line:
                break
            self._note(number, len(line))
        self._file.truncate(self._size)

    def __contains__(self, number: object) -> bool:
        return number in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> bytes:
        return self._read(*self._places[number])

    def add(self, number: int, line: bytes) -> None:
        """Keep a line; a line of this number that is there stays."""
        if number not in self._places:
            self._file.write(line)
            self._note(number, len(line))

    def pop(self, number: int) -> bytes:
        """Return a line and forget it.

        Raises:
            KeyError: it is not there.
        """
        line = self[number]
        self._n_live -= len(line)
        del self._places[number]
        return line

    def keep(self, is_wanted: Callable[[int], bool]) -> None:
        """Forget the lines whose numbers are not wanted."""
        for number in [number for number in self._places if not is_wanted(number)]:
            self.pop(number)

    def flush(self) -> None:
        """Give the lines to the system; make the file anew where most of it is written already."""
        self._file.flush()
        if not self._places and self._size:
            self._file.truncate(0)
            self._size = 0
        elif self._size - self._n_live > max(_MOST_WASTE, self._n_live):
            self._compact()

    def close(self) -> None:
        """Sync the file; remove it if it is empty."""
        self.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if not self._places:
            self._path.unlink(missing_ok=True)

    def _note(self, number: int, length: int) -> None:
        self._places[number] = self._size, length
        self._size += length
        self._n_live += length

    def _read(self, offset: int, length: int) -> bytes:
        self._file.flush()
        return os.pread(self._file.fileno(), length, offset)

    def _compact(self) -> None:
        old, places = self._file, self._places
        with whole_path(self._path) as partial, partial.open("wb") as file:
            file.writelines(self._read(*place) for place in places.values())
        self._file = self._path.open("a+b")
        old.close()
        self._places, self._size, self._n_live = {}, 0, 0
        for number, (_, length) in places.items():
            self._note(number, length)
