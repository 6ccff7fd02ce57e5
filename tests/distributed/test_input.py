"""Windows of an input: together they are its lines, whoever reads them."""

from __future__ import annotations

import io
import json
import pickle
import random
from pathlib import Path

import pytest

from tests.long import few
from tinker_local import NotFoundError
from tinker_local.batch.lines import Line, read_lines
from tinker_local.distributed import input as inputs
from tinker_local.distributed.input import JsonLines, cut, open_input, sorted_lines


@pytest.mark.parametrize("seed", few(2, range(50)))
def test_windows_are_the_lines_that_are_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    parts = [b"", b"  ", b"\xef\xbb\xbf{}", b'{"prompt": "ab"}', b"no json", b"x" * 50]
    path = tmp_path / "in"
    path.write_bytes(b"\n".join(rng.choice(parts) for _ in range(60)) + rng.choice([b"", b"\n"]))
    whole = list(read_lines(io.BytesIO(path.read_bytes())))
    done = {line.number for line in whole if rng.random() < 0.3}
    n_before = rng.randrange(len(whole))
    monkeypatch.setattr(inputs, "_BYTES", rng.choice([1, 60, 10_000]))
    monkeypatch.setattr(inputs, "_LINES", rng.choice([1, 7, 1000]))
    source = pickle.loads(pickle.dumps(JsonLines(str(path))))
    last = whole[n_before - 1] if n_before else Line(0, b"", 0)
    windows = list(cut(whole[n_before:], last.end, last.number, done))
    assert [n for window in windows for n in window.numbers()] == [line.number for line in whole[n_before:]]
    read = [line for window in windows for line in sorted_lines(source, window)]
    wanted = [line for line in whole[n_before:] if line.number not in done]
    assert sorted((line.number, line.data) for line in read) == [
        (line.number, line.data) for line in wanted
    ]
    assert [len(window) for window in windows] == [len(sorted_lines(source, window)) for window in windows]


def test_lines_with_a_common_prefix_are_side_by_side(tmp_path: Path) -> None:
    stems = ["The sea ", "A hill ", "On "]
    items = [{"prompt": stems[i % 3] + str(i)} for i in range(9)]
    items += [{"tokens": [7, i % 2, i]} for i in range(4)]
    items += [{"images": ["dog", "cat"][i % 2 : 1 + i % 2], "prompt": str(i)} for i in range(4)]
    path = tmp_path / "in"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    source = open_input(str(path))
    (window,) = cut(source.lines(), 0, 0, ())
    heads = [str(next(iter(json.loads(line.data).values())))[:5] for line in sorted_lines(source, window)]
    assert heads == [head for head in dict.fromkeys(heads) for _ in range(heads.count(head))]


def test_parquet_rows_are_lines(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "in.parquet"
    table = pa.table({"prompt": [f"p{i}" for i in range(10)], "seed": [None, *range(1, 10)]})
    parquet.write_table(table, path, row_group_size=4)
    for source in (open_input(str(path)), open_input(f"file://{path}")):
        lines = list(source.lines())
        assert lines[0] == Line(1, b'{"prompt": "p0"}', 1)
        assert json.loads(lines[9].data) == {"prompt": "p9", "seed": 9}
        assert (source.size, [*source.read(3, 3, 9)]) == (10, lines[3:9])


def test_uris_are_read_and_what_is_not_there_is_said(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "ab"}\n\n{"prompt": "cd"}\n')
    source = open_input(f"file://{path}")
    assert not source.is_local
    assert [*source.lines()] == [*open_input(str(path)).lines()]
    for missing in (str(tmp_path / "none"), f"file://{tmp_path}/none", "no-such-scheme://x"):
        with pytest.raises(NotFoundError, match="cannot be read"):
            open_input(missing)
