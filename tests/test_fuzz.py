"""Some cases of each fuzzer, and a few hundred as ``long``.

``python -m tests.fuzz.gguf`` and the others run thousands.
"""

from __future__ import annotations

import os

import pytest

from tests.fuzz import archives, checkpoints, gguf, templates
from tests.fuzz.command import Fuzzer
from tests.long import few

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")

SEED = 20
CASES: dict[str, tuple[Fuzzer, int, str]] = {
    "gguf": (gguf.FUZZER, 200, "computed"),
    "checkpoints": (checkpoints.FUZZER, 100, "converted"),
    "archives": (archives.FUZZER, 100, "unpacked"),
    "templates": (templates.FUZZER, 60, "rendered"),
}


@pytest.mark.parametrize("part", few(1, [5, 1]))
@pytest.mark.parametrize("name", CASES)
def test_no_case_does_harm(name: str, part: int) -> None:
    fuzzer, count, good = CASES[name]
    count //= part
    report = fuzzer.run(count, SEED)
    assert not report.problems, "\n".join(report.lines())
    assert report.outcomes.total() == count
    assert report.outcomes["refused"] > count / 5, "the cases are too tame"
    assert report.outcomes[good] > count / 20, "the cases are too wild"


def test_a_fuzzer_sees_what_goes_wrong() -> None:
    report = Fuzzer(
        "tests.fuzz.harm",
        5,
        lambda _: None,
        lambda number, *_: b"%d" % number,
        lambda *_: "",
        "builtins:OSError",
        seconds=4.0,
    ).run(5, 0)
    said = {number: problem.split(":")[0].split(" by ")[0] for number, problem in report.problems}
    assert said == {
        0: "the process ended with status -6",
        1: "IndexError",
        2: "the process grew",
        4: "no answer in 4 s",
    }
    assert report.outcomes["refused"] == 1
