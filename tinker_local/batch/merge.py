"""merge: the outputs of all shards of an input become the output that one run would have written.

Nothing is believed: each shard must be there once and complete, made with the same settings, and its lines
must be its own, in order. All that is wrong is said at once, before anything is written.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from convert.files.whole_file import sync, whole_path
from tinker_local.batch.item import number_in
from tinker_local.batch.output import lock, refusal
from tinker_local.batch.settings import Finish, RunSettings
from tinker_local.batch.shard import Shard
from tinker_local.errors import BadRequestError

_ERROR = b', "error": '
_BLOCK = 1 << 16  # bytes read of one shard at a time, so thousands of shards fit in memory
_SHOWN = 5  # missing lines that an error names


@dataclass(frozen=True, slots=True)
class _ShardOutput:
    """The output of one shard, with what is noted beside it."""

    path: Path
    shard: Shard
    settings: RunSettings

    @classmethod
    def open(cls, path: Path) -> _ShardOutput:
        if not path.is_file():
            raise BadRequestError(f"{path} is not a file; give the outputs of the shards")
        settings = RunSettings.read(path)
        shard = settings.given.get("shard")
        if not isinstance(shard, str):
            raise BadRequestError(f"{path} is not the output of a shard; it was made without --shard")
        return cls(path, Shard.parse(shard), settings)

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that all shards have in common."""
        return {name: value for name, value in self.settings.given.items() if name != "shard"}

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines with their numbers. The file is not held open: there may be thousands.

        Raises:
            BadRequestError: a line is not of this shard, or not in order.
        """
        before = 0
        for line in _read_lines(self.path):
            number = number_in(line) or 0
            if number <= before or not self.shard.takes(number):
                raise BadRequestError(
                    f"{self.path} is damaged: {line[:40]!r} is not the next line of shard {self.shard}; "
                    "remove that file, and run the shard again"
                )
            yield number, line
            before = number

    def problem(self, last: int) -> str | None:
        """Say what is missing; ``last`` is the number of the input's last line."""
        numbers = {number for number, _ in self.lines()} if self._may_lack_lines() else None
        if numbers is None:
            return None
        missing = _missing(self.shard, last, numbers)
        return f"{self.path} is not complete (shard {self.shard}): {missing}"

    def _may_lack_lines(self) -> bool:
        finish = self.settings.finish
        return finish is None or sum(1 for _ in _read_lines(self.path)) != finish.n_lines


@dataclass(frozen=True, slots=True)
class Merged:
    """Counts of a merged output.

    Attributes:
        n_lines: lines of the output.
        n_failed: how many of them have an error.
    """

    n_lines: int
    n_failed: int


def merge(paths: Sequence[Path], output: Path, *, force: bool = False) -> Merged:
    """Write the lines of all shards into one output, in order.

    The output and its settings are those of a run without shards: such a run can continue it. Memory does
    not grow with the files.

    Args:
        paths: outputs of the shards, in any order.
        output: the file to write; it appears when it is whole and on the disk.
        force: replace an output that is there.

    Raises:
        BadRequestError: lines or shards are missing, or there twice; settings differ; the output is there
            already, or cannot be written.
    """
    if output.exists() and not force:
        raise BadRequestError(f"{output} is there already; name another file, or replace it with --force")
    shards = sorted(map(_ShardOutput.open, dict.fromkeys(paths)), key=lambda each: each.shard.number)
    last = _check(shards)
    if any(output.exists() and output.samefile(each.path) for each in shards):
        raise BadRequestError(f"{output} is one of the shards; name another file")
    held = lock(output)
    try:
        return _publish(shards, output, last)
    except OSError as error:
        raise refusal(output, error) from error
    finally:
        held.release()


def _check(shards: Sequence[_ShardOutput]) -> int:
    """Return the number of the input's last line, if the shards are all there, whole, and agree."""
    if not shards:
        raise BadRequestError("there are no files to merge; give the outputs of the shards")
    first = shards[0]
    for each in shards[1:]:
        if each.shard.count != first.shard.count:
            raise BadRequestError(
                f"{first.path} is shard {first.shard}, and {each.path} is shard {each.shard}; merge the "
                "shards of one input"
            )
        for name in {**first.shared, **each.shared}:
            if first.shared.get(name) != each.shared.get(name):
                raise BadRequestError(
                    f"{first.path} was made with {name} = {first.shared.get(name)!r}, and {each.path} with "
                    f"{each.shared.get(name)!r}; merge shards with the same settings"
                )
    _check_ends(shards)
    last = max((each.settings.finish.last for each in shards if each.settings.finish), default=0)
    problems = [*_twice(shards), *_absent(shards, last), *filter(None, (s.problem(last) for s in shards))]
    if problems:
        raise BadRequestError("; ".join(problems) + ". Run these shards again, then merge")
    return last


def _check_ends(shards: Sequence[_ShardOutput]) -> None:
    """Check that all shards that are complete saw an input of one length."""
    ends = {each.settings.finish.last: each for each in shards if each.settings.finish}
    if len(ends) > 1:
        a, b = islice(ends.items(), 2)
        raise BadRequestError(
            f"the input had {a[0]:,} lines for {a[1].path}, and {b[0]:,} for {b[1].path}; run the shards "
            "with one input, then merge"
        )


def _twice(shards: Sequence[_ShardOutput]) -> Iterator[str]:
    seen = dict[Shard, Path]()
    for each in shards:
        if each.shard in seen:
            yield f"{seen[each.shard]} and {each.path} are both shard {each.shard}"
        seen[each.shard] = each.path


def _absent(shards: Sequence[_ShardOutput], last: int) -> Iterator[str]:
    count, there = shards[0].shard.count, {each.shard.number for each in shards}
    for number in range(1, count + 1):
        if number not in there:
            shard = Shard(number, count)
            yield f"shard {shard} is not there: {_missing(shard, last, set())}"


def _missing(shard: Shard, last: int, there: set[int]) -> str:
    """Name the first lines that a shard lacks. Without the input, nobody knows which lines are empty."""
    wanted = (number for number in range(shard.number, last + 1, shard.count) if number not in there)
    named = list(islice(wanted, _SHOWN + 1))
    if not named:
        return f"lines after {max(there, default=0):,} may be missing"
    more = ", ..." if len(named) > _SHOWN else ""
    return f"without lines {', '.join(f'{number:,}' for number in named[:_SHOWN])}{more}"


def _read_lines(path: Path) -> Iterator[bytes]:
    offset = 0
    while True:
        with path.open("rb") as file:
            file.seek(offset)
            lines = file.readlines(_BLOCK)
        if not lines:
            return
        offset += sum(map(len, lines))
        yield from lines


def _publish(shards: Sequence[_ShardOutput], output: Path, last: int) -> Merged:
    """Write the output. An older one goes, with its settings, once the new one is on the disk."""
    n_lines = n_failed = 0
    with whole_path(output) as partial:
        with partial.open("wb", buffering=1 << 20) as file:
            for _, line in heapq.merge(*(each.lines() for each in shards)):
                file.write(line)
                n_lines += 1
                n_failed += _ERROR in line and "error" in json.loads(line)
        sync(partial)
        first = shards[0]
        output.unlink(missing_ok=True)
        RunSettings(first.shared, first.settings.seed, Finish(n_lines, last)).write(output)
    sync(output.parent)
    return Merged(n_lines, n_failed)
