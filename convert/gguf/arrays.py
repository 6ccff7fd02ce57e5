"""Arrays in a GGUF file's metadata.

A vocabulary and its merges are arrays of some 150,000 texts, each with its length before it. A Python loop
over them would take most of the time of reading a head, so numpy finds where the texts begin.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Number = bool | int | float
_LENGTH = 8  # bytes of a text's length
_SMALL, _LARGE = 1 << 12, 1 << 22  # bytes that are looked at together
_STEPS = 64
_INTEGERS = (4, 5)  # UINT32 and INT32 of enum gguf_type


class Malformed(Exception):
    """Something in a file is wrong. The message says what, and not in which file."""


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """An array of numbers or of texts.

    Attributes:
        kind: of its elements, enum gguf_type.
        values: numbers, shape (n,); None if it is of texts.
        data: the texts with their lengths before them.
        starts: int64, shape (n + 1,): where in ``data`` each length begins, and the end.
    """

    kind: int
    values: NDArray[np.generic] | None
    data: bytes = b""
    starts: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        if self.starts is not None:
            return len(self.starts) - 1
        assert self.values is not None
        return len(self.values)

    def texts(self) -> list[bytes]:
        """Return the texts, as bytes."""
        assert self.starts is not None
        if not self.has_zeros():
            return self._without_lengths().tobytes().split(bytes(_LENGTH))[1:]
        pairs = pairwise(self.starts.tolist())
        return [self.data[start + _LENGTH : end] for start, end in pairs]

    def has_zeros(self) -> bool:
        """Whether any text contains a zero byte."""
        return int(np.count_nonzero(self._without_lengths() == 0)) > _LENGTH * len(self)

    def _without_lengths(self) -> NDArray[np.uint8]:
        """Return the data with the bytes of each length set to zero."""
        assert self.starts is not None
        plain = np.frombuffer(self.data, np.uint8).copy()
        starts = self.starts[:-1]
        plain[starts] = 0
        long = starts[np.diff(self.starts) >= 256 + _LENGTH]
        plain[long[:, None] + np.arange(_LENGTH)] = 0
        return plain

    def integers(self) -> list[int] | None:
        """Return the numbers if they are 32-bit integers, else None."""
        if self.values is None or self.kind not in _INTEGERS:
            return None
        return [int(value) for value in self.values]

    def is_utf8(self) -> bool:
        """Whether each of the texts is UTF-8."""
        try:
            self._without_lengths().tobytes().decode("utf-8")  # a character cannot go on behind zeros
        except UnicodeDecodeError:
            return False
        return True

    def have_a_space(self) -> bool:
        """Whether every text has a space after its first byte, as merges must have."""
        assert self.starts is not None
        spaces = np.flatnonzero(np.frombuffer(self.data, np.uint8) == ord(" "))
        spaces = np.append(spaces, [len(self.data), np.iinfo(np.int64).max])
        first = spaces[np.searchsorted(spaces, self.starts[:-1] + _LENGTH + 1)]
        return bool((first < self.starts[1:]).all())


def numbers(kind: int, values: NDArray[np.generic]) -> Array:
    """Return an array of numbers."""
    return Array(kind, values)


def array_of(data: bytes, starts: NDArray[np.int64]) -> Array:
    """Return an array of texts; ``starts`` counts from where ``data`` begins."""
    return Array(8, None, data, starts)


def string_starts(
    data: mmap.mmap | bytes, start: int, count: int, what: str
) -> tuple[NDArray[np.int64], int]:
    """Find the texts of an array.

    Args:
        data: the file.
        start: where the first text's length is.
        count: how many texts there should be.
        what: the array's name for a message.

    Returns:
        int64, shape (count + 1,): where each text's length begins and where the last text ends, counted
        from ``start``; and that end, counted from the start of the file.

    Raises:
        Malformed: the texts do not lie within the file.
    """
    if count > (len(data) - start) // _LENGTH:
        raise Malformed(f"it is cut off: {what} would have {count:,} texts")
    found = np.empty(count + 1, np.int64)
    n, position, window = 0, start, _SMALL
    while n < count:
        run = _run(data, position, window, count - n)
        window = min(4 * window, _LARGE) if 4 * len(run) * _LENGTH > window else _SMALL
        if len(run) == 1:  # long or empty texts, or half of a file's worth of nonsense
            run = _steps(data, position, min(_STEPS, count - n))
        found[n : n + len(run)] = run
        n += len(run)
        position = _end(data, int(run[-1]))
        if position > len(data) or (n < count and position + _LENGTH > len(data)):
            raise Malformed(
                f"it is cut off: a text in {what} would end at byte {position:,}, the file has "
                f"{len(data):,}"
            )
    found[count] = position
    return found - start, position


def _end(data: mmap.mmap | bytes, start: int) -> int:
    """Return the end of the text whose length is stored at ``start``."""
    return start + _LENGTH + int.from_bytes(data[start : start + _LENGTH], "little")


def _steps(data: mmap.mmap | bytes, position: int, most: int) -> NDArray[np.int64]:
    """Return the starts of the texts from ``position`` on, found one by one; at least the first."""
    starts = [position]
    while len(starts) < most and (position := _end(data, position)) + _LENGTH <= len(data):
        starts.append(position)
    return np.array(starts, np.int64)


def _run(data: mmap.mmap | bytes, position: int, size: int, most: int) -> NDArray[np.int64]:
    """Return the starts of the texts from ``position`` on within ``size`` bytes, all found at once.

    A length below 256 is a byte followed by seven zeros, so each such place is a guess. A guess is right if
    it lies just behind the text of the guess before it. The result ends at the first guess that does not,
    and has at least one start.
    """
    window = np.frombuffer(data[position : position + size], np.uint8)
    zero = window == 0
    n = len(window) - _LENGTH
    if n <= 0:
        return np.array([position], np.int64)
    tail = zero[1 : n + 1].copy()
    for shift in range(2, _LENGTH):
        tail &= zero[shift : n + shift]
    guesses = np.flatnonzero(tail)[: most + 1]
    if not len(guesses) or guesses[0] != 0:
        return np.array([position], np.int64)
    follows = guesses[:-1] + _LENGTH + window[guesses[:-1]] == guesses[1:]
    sure = int(np.argmin(follows)) if not follows.all() else len(follows)
    return position + guesses[: min(sure + 1, most)].astype(np.int64)
