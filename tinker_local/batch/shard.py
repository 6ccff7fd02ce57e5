"""Shard: the lines of an input that one of several runs answers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinker_local.errors import BadRequestError

_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Shard:
    """Every ``count``-th line of the input, beginning with line ``number``.

    Lines go to the shards in turn, so the shards are even when the input is sorted by length. Empty lines
    count, as they do in the line numbers of the output.

    Attributes:
        number: which shard, from 1.
        count: how many there are.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that ``I/N`` names.

        Raises:
            BadRequestError: the text has another form, or I is not from 1 to N.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        if not match:
            raise BadRequestError(f"the shard is {text!r}; give I/N, as in 3/16")
        number, count = map(int, match.groups())
        if not 1 <= count <= _MOST:
            raise BadRequestError(f"the shard is {text}; an input has from 1 to {_MOST:,} shards")
        if not 1 <= number <= count:
            raise BadRequestError(
                f"the shard is {text}; shards count from 1 to {count}. Add 1 to an index from 0, as in "
                f"$((SLURM_ARRAY_TASK_ID + 1))/{count}"
            )
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def takes(self, line: int) -> bool:
        """Whether the line with this number, from 1, belongs to the shard."""
        return (line - self.number) % self.count == 0
