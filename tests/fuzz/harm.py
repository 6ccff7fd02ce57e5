"""All that a case may do wrong, for the test of the fuzzers."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.fuzz.command import Fuzzer, fuzzer_main


def attempt(path: Path, _seeds: Path) -> str:
    number = int(path.read_bytes())
    if number == 0:
        os.abort()
    if number == 1:
        raise IndexError("not one of ours")
    if number == 2:
        grown = bytearray(1_200_000_000)
        grown[::4096] = b"x" * len(grown[::4096])
        return "grown"
    if number == 3:
        raise OSError("one of ours")
    time.sleep(60)
    return "slept"


FUZZER = Fuzzer("tests.fuzz.harm", 5, lambda _: None, lambda *_: b"", attempt, "builtins:OSError")

if __name__ == "__main__":
    fuzzer_main(FUZZER, __doc__)
