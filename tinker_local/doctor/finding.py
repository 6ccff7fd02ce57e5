"""Finding: something that is wrong, or could be better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to act on.

    Attributes:
        what: the fact.
        remedy: what to do.
        is_wrong: whether something does not work; else it works, and could be better.
    """

    what: str
    remedy: str
    is_wrong: bool = True
