"""The lines of an input, read one at a time, however large the input is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

LONGEST = 1 << 26
"""Longest line that is accepted, in bytes."""

_PIECE = 1 << 16  # most bytes of one read
_BOM = b"\xef\xbb\xbf"


class Source(Protocol):
    """A binary input: a file or standard input."""

    def read(self, n: int, /) -> bytes | None:
        """Return up to n bytes as soon as there are any; an empty result means the end."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not empty.

    Attributes:
        number: line number in the input, from 1; empty lines count.
        data: the bytes without the line break; of a longer line the first ``LONGEST``.
        end: offset in the input just behind the line, in bytes.
        is_cut: the line was longer than ``LONGEST``.
    """

    number: int
    data: bytes
    end: int
    is_cut: bool = False


def read_lines(source: Source, number: int = 0) -> Iterator[Line]:
    """Yield the lines that are not empty, each before the next read of the source.

    A pipe may be slow: a line that has arrived is yielded before more input is waited for.

    Args:
        source: the input, or its rest behind the end of a line.
        number: of that line, from 1; 0 at the beginning.
    """
    end, held, is_cut = 0, bytearray(), False
    while piece := source.read(_PIECE):
        *whole, rest = piece.split(b"\n")
        for part in whole:
            held += part
            number, end = number + 1, end + len(part) + 1
            yield from _line(number, held, end, is_cut)
            held, is_cut = bytearray(), False
        held, end = held + rest, end + len(rest)
        if len(held) > LONGEST:  # the rest of such a line is read and dropped
            del held[LONGEST:]
            is_cut = True
    yield from _line(number + 1, held, end, is_cut)


def _line(number: int, held: bytearray, end: int, is_cut: bool) -> Iterator[Line]:
    data = bytes(held)
    if number == 1:
        data = data.removeprefix(_BOM)
    if data := data.strip():
        yield Line(number, data, end, is_cut)
