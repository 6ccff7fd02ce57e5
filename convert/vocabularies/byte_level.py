"""GPT-2's byte-level BPE: every byte is written as one printable character."""

from __future__ import annotations

from functools import cache


@cache
def byte_characters() -> tuple[str, ...]:
    """Return the character that stands for each byte.

    Printable Latin-1 stands for itself, the rest for the characters from U+0100 on
    (https://github.com/openai/gpt-2/blob/master/src/encoder.py).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    characters, others = [], 0
    for byte in range(256):
        characters.append(chr(byte if byte in printable else 0x100 + others))
        others += byte not in printable
    return tuple(characters)


def as_characters(data: bytes) -> str:
    """Return bytes as the vocabulary writes them."""
    characters = byte_characters()
    return "".join(characters[byte] for byte in data)


NEVER_IN_UTF8 = frozenset((0xC0, 0xC1, *range(0xF5, 0x100)))
"""Bytes that never occur in UTF-8; a vocabulary may leave them out."""


def missing_bytes(tokens: set[str]) -> bytes:
    """Return the bytes that can occur in a text and have no token."""
    characters = byte_characters()
    return bytes(b for b in range(256) if b not in NEVER_IN_UTF8 and characters[b] not in tokens)
