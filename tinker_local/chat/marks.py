"""Marks: digits that stand for a place in the text while a template runs.

A mark is drawn at random for each rendering, so that no message and no template can contain it. Digits stay
as they are where a template changes case or writes JSON.
"""

from __future__ import annotations

import secrets

_DIGITS = 40


def new_mark() -> str:
    """Return a mark."""
    return f"{secrets.randbelow(10**_DIGITS):0{_DIGITS}}"


def unlike(mark: str) -> str:
    """Return a mark that is one digit longer than another, and differs from it in every place."""
    return "".join(str((int(digit) + 1) % 10) for digit in mark) + str(secrets.randbelow(10))
