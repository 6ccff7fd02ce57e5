"""Which characters of a text each token stands for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinker_local.errors import BadRequestError

Offset = tuple[int, int]
"""Where a token's characters begin and end; the end is excluded."""


def token_offsets(text: str, pieces: Sequence[bytes]) -> list[Offset]:
    """Return the characters that each token of a text stands for.

    A token of a few bytes of a character stands for the whole character, as in the library ``tokenizers``.

    Args:
        text: the text.
        pieces: the bytes of its tokens, in order, with no token that was added around the text.

    Raises:
        BadRequestError: the tokens do not spell the text, such as where the vocabulary rewrites characters.
    """
    data = text.encode()
    spans = _byte_spans(data, pieces)
    leads = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80  # bytes that begin a character in UTF-8
    character = np.append(np.cumsum(leads) - 1, len(text))
    return [
        (int(character[start]), int(character[end - 1]) + 1 if end > start else int(character[start]))
        for start, end in spans
    ]


def _byte_spans(data: bytes, pieces: Sequence[bytes]) -> list[Offset]:
    spans, place = [], 0
    for piece in pieces:
        start, end = _find(data, place, piece)
        spans.append((start, end))
        place = end
    return spans


def _find(data: bytes, place: int, piece: bytes) -> Offset:
    """Return where a token's bytes are, from a place on.

    SentencePiece puts a space in front that the text does not have. Some special tokens swallow the spaces
    beside them.
    """
    start = place
    while True:
        for spelled in (piece, piece.removeprefix(b" ")):
            if data.startswith(spelled, start):
                return start, start + len(spelled)
        if not data[start : start + 1].isspace():
            break
        start += 1
    text, token = (part.decode("utf-8", "replace") for part in (data[place : place + 20], piece))
    raise BadRequestError(f"offsets are not known: the vocabulary spells {text!r} as {token!r}")
