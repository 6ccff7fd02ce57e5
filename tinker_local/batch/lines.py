"""Lines of an input, one at a time, however large it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

LONGEST = 1 << 26
"""Bytes of the longest line that is taken."""

_PIECE = 1 << 16  # bytes read at once, at most
_BOM = b"\xef\xbb\xbf"


class Source(Protocol):
    """What lines are read from."""

    def read(self, n: int, /) -> bytes | None:
        """Return up to n bytes, as soon as there are any; none at the end."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line with something in it.

    Attributes:
        number: its place in the input, from 1; empty lines count.
        data: its bytes, without the line's end; the first ``LONGEST`` of them.
        end: bytes of the input up to its end.
        is_cut: whether it has more bytes.
    """

    number: int
    data: bytes
    end: int
    is_cut: bool = False


def read_lines(source: Source) -> Iterator[Line]:
    """Yield the lines that are not empty. What has been read is yielded before more is waited for."""
    number, end, held, is_cut = 0, 0, bytearray(), False
    while piece := source.read(_PIECE):
        *whole, rest = piece.split(b"\n")
        for part in whole:
            held += part
            number, end = number + 1, end + len(part) + 1
            yield from _line(number, held, end, is_cut)
            held, is_cut = bytearray(), False
        held, end = held + rest, end + len(rest)
        if len(held) > LONGEST:
            del held[LONGEST:]
            is_cut = True
    yield from _line(number + 1, held, end, is_cut)


def _line(number: int, held: bytearray, end: int, is_cut: bool) -> Iterator[Line]:
    data = bytes(held)
    if number == 1:
        data = data.removeprefix(_BOM)
    if data := data.strip():
        yield Line(number, data, end, is_cut)
