"""What the fuzzers have in common: their arguments, and the two processes they run as."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.pool import SECONDS, Child, Report, fuzz, serve


@dataclass(frozen=True)
class Fuzzer:
    """Attributes:
    module: where it is, for the child.
    count: cases if nothing else is said.
    write_seeds: writes sound files to a directory.
    make: makes case ``number`` of a seed from them; it depends on nothing else.
    attempt: opens a case, in the child, with the seeds at hand.
    errors: the errors that may come of it, ``module:name``.
    seconds: the limit of a case.
    """

    module: str
    count: int
    write_seeds: Callable[[Path], object]
    make: Callable[[int, int, Path], bytes]
    attempt: Callable[[Path, Path], str]
    errors: str
    seconds: float = SECONDS

    def run(self, count: int, seed: int, first: int = 0, keep: Path | None = None) -> Report:
        """Fuzz, and return what became of the cases from ``first`` on."""
        with tempfile.TemporaryDirectory() as temporary:
            seeds, work = Path(temporary) / "seeds", keep or Path(temporary) / "work"
            seeds.mkdir()
            work.mkdir(parents=True, exist_ok=True)
            self.write_seeds(seeds)
            cases = ((number, self.make(number, seed, seeds)) for number in range(first, first + count))
            child = Child(self.module, str(seeds), seconds=self.seconds)
            return fuzz(child, cases, work, keep is not None)

    def serve(self, seeds: Path) -> None:
        """Be the child."""
        module, _, name = self.errors.partition(":")
        ours: type[Exception] = getattr(importlib.import_module(module), name)
        serve(lambda path: self.attempt(path, seeds), (ours,))


def fuzzer_main(fuzzer: Fuzzer, description: str | None) -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {fuzzer.module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=fuzzer.count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", type=Path, help="keep the files that led to a problem here")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        fuzzer.serve(given.child)
        return
    report = fuzzer.run(given.count, given.seed, given.first, given.keep)
    print("\n".join(report.lines()))
    sys.exit(bool(report.problems))
