"""Processes by their titles, as Ray gives them to its actors. Needs /proc."""

from __future__ import annotations

from pathlib import Path

ACTOR = (b"ray::MapWorker(MapBatches(LineAnswers))", b"ray::MapBatches(LineAnswers).submit")
"""Beginnings of the titles of actors that answer lines: in Ray 2.60, and in 2.47 while they do."""


def processes(*titles: bytes) -> list[int]:
    """Return the ids of the processes whose titles begin with one of these."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(titles):
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found
