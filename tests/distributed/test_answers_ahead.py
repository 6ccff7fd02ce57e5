"""Answers that came before their turn survive a kill, and take no more room than they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinker_local.distributed import answers_ahead
from tinker_local.distributed.answers_ahead import AnswersAhead


def line(number: int) -> bytes:
    return b'{"line": %d, "prompt": "%s"}\n' % (number, b"x" * (number % 7))


@pytest.mark.parametrize("torn", [b"", b'{"line": 9, "pro', b"\0" * 30, b'{"line": 9, "x": \0}\n'])
def test_a_later_run_finds_what_was_flushed(tmp_path: Path, torn: bytes) -> None:
    first = AnswersAhead(tmp_path / "out")
    for number in (5, 3, 8):
        first.add(number, line(number))
    first.flush()
    with (tmp_path / ".out.ahead").open("ab") as file:
        file.write(torn)
    second = AnswersAhead(tmp_path / "out")
    assert [number for number in range(10) if number in second] == [3, 5, 8]
    second.add(9, line(9))
    assert second.pop(3) == line(3)
    second.keep(lambda number: number != 5)
    assert (second.pop(8), second.pop(9), len(second)) == (line(8), line(9), 0)
    second.close()
    assert not list(tmp_path.iterdir()), "nothing is left when all is written"


def test_the_file_does_not_grow_with_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_ahead, "_MOST_WASTE", 1000)
    ahead = AnswersAhead(tmp_path / "out")
    ahead.add(1, line(1))  # waits to the end
    for number in range(2, 500):
        ahead.add(number, line(number))
        assert ahead.pop(number) == line(number)
        ahead.flush()
        assert (tmp_path / ".out.ahead").stat().st_size < 2000
    assert ahead.pop(1) == line(1)
    ahead.close()
