"""Diagnosis: a problem, or something that could be better, with its remedy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A problem of the installation, the machine or the models, with its remedy.

    Attributes:
        what: the problem.
        remedy: what to do about it.
        is_wrong: True if something does not work, False if it works but could be better.
    """

    what: str
    remedy: str
    is_wrong: bool = True
