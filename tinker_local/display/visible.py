"""Make any text visible. Texts are not trusted: they may hold control characters or half a character.

A character that is invisible, or that would change how others look, is shown as a Python escape
(``\\x1b``, ``\\u202e``); line breaks and tabs are shown as arrows. A byte that is not UTF-8 is shown as
``\\xf0``. From ``\\x80`` on such escapes stand for bytes alone: characters are ``\\u0080`` to ``\\u00ff``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

_ARROWS = {"\n": "↵", "\t": "⇥"}
_BLANKS = "\u034f\u115f\u1160\u2800\u3164\uffa0"  # letters, marks and symbols that are invisible
_LONE_BYTES = range(0xDC80, 0xDD00)  # ``surrogateescape`` writes bytes that are not UTF-8 so


class Piece(NamedTuple):
    """A piece of text.

    Attributes:
        shown: the text to show.
        written: the characters it stands for; "" for a mark of its own.
        is_mark: whether ``shown`` differs from ``written``.
    """

    shown: str
    written: str
    is_mark: bool


def text_of_bytes(data: bytes) -> str:
    """Decode UTF-8; bytes that are not UTF-8 become lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of_text(text: str) -> bytes:
    """Encode as UTF-8: the inverse of ``text_of_bytes``."""
    return text.encode("utf-8", "surrogateescape")


def escaped(data: bytes) -> str:
    """Decode UTF-8 for programs to read; bytes that are not UTF-8 are written ``\\xf0``."""
    return data.decode("utf-8", "backslashreplace")


def quoted(text: str) -> str:
    """Return a text between quotes on one line, as Python writes it, except for bytes that are not UTF-8.

    These are written ``\\xf0``, and characters from U+0080 to U+00FF that are invisible ``\\u0085``.

    Args:
        text: as ``text_of_bytes`` returns it.
    """
    quote = '"' if "'" in text and '"' not in text else "'"
    written = {quote: f"\\{quote}", "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
    return quote + "".join(written.get(c) or _mark(c) or c for c in text) + quote


def pieces(text: str) -> Iterator[Piece]:
    """Split a text into plain pieces and marks, one mark for each invisible character."""
    if not text:
        yield Piece("∅", "", True)
    elif unicodedata.category(text[0]).startswith("M"):
        yield Piece("◌", "", True)  # a combining mark would attach to the text before
    plain = ""
    for character in text:
        if (mark := _mark(character)) is None:
            plain += character
            continue
        if plain:
            yield Piece(plain, plain, False)
        plain = ""
        yield Piece(mark, character, True)
    if plain:
        yield Piece(plain, plain, False)


def one_line(text: str, limit: int = 48) -> str:
    """Return a text on one line, cut to ``limit`` characters; spaces at its ends are shown as dots."""
    shown = "".join(piece.shown for piece in pieces(text[: limit + 1]))
    core = shown.strip(" ")
    before = len(shown) - len(shown.lstrip(" ")) if core else len(shown)
    after = len(shown) - len(shown.rstrip(" ")) if core else 0
    line = "·" * before + core + "·" * after
    return line if len(text) <= limit and len(line) <= limit else line[: limit - 1] + "…"


def is_plain(text: str) -> bool:
    """Whether a text needs no marks."""
    return not any(piece.is_mark for piece in pieces(text))


def is_right_to_left(text: str) -> bool:
    """Whether a text's first letter belongs to a script written from right to left."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def whole_characters(texts: Sequence[str]) -> dict[int, str]:
    """Find characters that are spread over several tokens.

    Args:
        texts: texts of consecutive tokens, from ``text_of_bytes``.

    Returns:
        Place of a token -> the whole text that it is a part of, for tokens that hold part of a character.
    """
    found: dict[int, str] = {}
    start, run = 0, b""
    for i, text in enumerate(texts):
        if not run and not _has_lone_bytes(text):
            continue
        start = start if run else i
        run += bytes_of_text(text)
        try:
            whole = run.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and i - start < 3:
                continue  # a character has at most four bytes
        else:
            found.update(dict.fromkeys(range(start, i + 1), whole))
        run = b""
    return found


@cache
def _mark(character: str) -> str | None:
    """Return the mark for a character; None if it can be shown as it is."""
    if arrow := _ARROWS.get(character):
        return arrow
    if ord(character) in _LONE_BYTES:
        return f"\\x{ord(character) - 0xDC00:02x}"
    category = unicodedata.category(character)
    unseen = category.startswith("C") or (category.startswith("Z") and character != " ")
    if not unseen and character not in _BLANKS:
        return None
    return f"\\u{ord(character):04x}" if "\x80" <= character <= "\xff" else ascii(character)[1:-1]


def _has_lone_bytes(text: str) -> bool:
    return any(ord(character) in _LONE_BYTES for character in text)


__all__ = [
    "Piece",
    "bytes_of_text",
    "escaped",
    "is_plain",
    "is_right_to_left",
    "one_line",
    "pieces",
    "quoted",
    "text_of_bytes",
    "whole_characters",
]
