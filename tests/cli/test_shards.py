"""Shards of an input: each line is answered once, and the merged output is that of one run."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.conftest import ROOT
from tests.random_model import Shape, write_random_model
from tinker_local.batch import Merged, OutputFile, SampleTask, Shard, merge
from tinker_local.batch.lines import Line
from tinker_local.cli import app
from tinker_local.errors import BadRequestError
from tinker_local.types import SamplingParams

SETTINGS = ["--n-ctx", "256", "--max-tokens", "5", "--batch-invariant", "--n-threads", "1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", shape=Shape(n_layer=1))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def command(tiny: Path, given: Path, *arguments: str | Path) -> list[str | Path]:
    return ["sample", "--model", tiny, *SETTINGS, "--seed", "5", "--input", given, *arguments]


def test_merged_shards_are_the_output_of_one_run(tiny: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": "ab " * (i % 7 + 1), "id": i}) for i in range(23)]
    lines[4] = lines[9] = lines[22] = ""
    lines[6] = '{"prompt": 5}'
    given, whole = tmp_path / "in", tmp_path / "whole.jsonl"
    given.write_text("\n".join(lines) + "\n")
    assert run(*command(tiny, given, "--output", whole)).exit_code == 1, "a line has an error"
    outs = [tmp_path / f"out.{i}.jsonl" for i in range(1, 4)]
    for i, out in enumerate(outs, start=1):
        run(*command(tiny, given, "--output", out, "--shard", f"{i}/3"))
        numbers = [json.loads(line)["line"] for line in out.read_text().splitlines()]
        assert numbers == [n for n in range(i, 24, 3) if n not in (5, 10, 23)]
    merged = tmp_path / "out.jsonl"
    result = run("merge", *outs, "--output", merged)
    assert (result.exit_code, "20 lines of 3 shards" in result.stderr) == (1, True), result.output
    assert merged.read_bytes() == whole.read_bytes()
    settings = tmp_path / "out.jsonl.settings"
    assert json.loads(settings.read_text()) == json.loads(
        (tmp_path / "whole.jsonl.settings").read_text().replace("whole.jsonl", "out.jsonl")
    )
    given.write_text("\n".join([*lines, '{"prompt": "more"}']))
    run(*command(tiny, given, "--output", merged))
    assert json.loads(merged.read_text().splitlines()[-1])["line"] == 24, "a run without shards goes on"


def test_a_shard_goes_on_where_it_stopped_and_no_other_takes_its_file(tiny: Path, tmp_path: Path) -> None:
    given, out = tmp_path / "in", tmp_path / "out"
    given.write_text('{"prompt": "ab"}\n' * 20)
    arguments = command(tiny, given, "--output", out, "--json", "--shard")
    assert json.loads(run(*arguments, "2/3").stdout)["lines"] == 7
    out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:4]) + b'{"line": 1')
    assert json.loads(run(*arguments, "2/3").stdout)["before"] == 4
    other = run(*arguments, "3/3")
    assert (other.exit_code, "begun with shard = '2/3'" in other.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0/16", "Add 1"),
        ("17/16", "count from 1 to 16"),
        ("3", "give I/N"),
        ("1/0", "from 1 to"),
        ("-1/2", "I/N"),
    ],
)
def test_a_shard_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        Shard.parse(text)
    given = tmp_path / "in"
    given.write_text('{"prompt": "ab"}\n')
    result = run("sample", "--input", given, "--seed", "1", "--shard", text)
    assert (result.exit_code, result.stderr.startswith("error: the shard is")) == (1, True)


def test_shards_draw_from_one_seed_and_need_an_input(tmp_path: Path) -> None:
    assert run("sample", "--input", tmp_path / "in", "--shard", "1/2").exit_code == 2
    assert run("logprobs", "ab", "--shard", "1/2").exit_code == 2


def write_shard(
    directory: Path,
    number: int,
    *,
    count: int = 3,
    lines: int = 10,
    done: int | None = None,
    given: Mapping[str, Any] = {"command": "sample"},
    name: str | None = None,
) -> Path:
    """Write what a shard of an input leaves; with ``done``, one that was killed after so many lines."""
    shard, task = Shard(number, count), SampleTask(SamplingParams())
    path = directory / (name or f"out.{number}.jsonl")
    out = OutputFile(path, {**given, "shard": str(shard)}, 1)
    numbers = [n for n in range(1, lines + 1) if shard.takes(n)]
    for n in numbers[:done]:
        out.write(task.item(Line(n, b'{"prompt": "x"}', n)).answer_line({"seed": n}))
    if done is None:
        out.finish(lines)
    out.close()
    return path


def test_lines_come_out_in_order(tmp_path: Path) -> None:
    paths = [write_shard(tmp_path, number) for number in (3, 1, 2)]
    assert merge(paths, tmp_path / "out") == Merged(10, 0)
    assert [json.loads(line)["seed"] for line in (tmp_path / "out").read_text().splitlines()] == [
        *range(1, 11)
    ]
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("absent", "shard 2/3 is not there: without lines 2, 5, 8. Run"),
        ("killed", r"out.2.jsonl is not complete \(shard 2/3\): without lines 5, 8. Run"),
        ("all killed", "lines after 4 may be missing"),
        ("cut", r"out.2.jsonl is not complete \(shard 2/3\): without lines 5"),
        ("two", r"shard 1/3 is not there: .*; .*out.2.jsonl is not complete"),
        ("twice", "out.2.jsonl and .*again.jsonl are both shard 2/3"),
        ("other count", "is shard 2/4; merge the shards of one input"),
        ("other settings", "with temperature = None, and .*out.2.jsonl with 0.5"),
        ("other input", "had 10 lines for .*, and 12 for"),
        ("no shard", "made without --shard"),
        ("edited", "is damaged: b'.*' is not the next line of shard 2/3"),
        ("no settings", "not out.2.jsonl.settings"),
        ("no file", "is not a file"),
        ("there", "is there already"),
    ],
)
def test_what_cannot_be_merged(tmp_path: Path, case: str, said: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "killed": {"done": 1},
        "two": {"done": 1},
        "all killed": {"done": 1},
        "other count": {"count": 4},
        "other settings": {"given": {"command": "sample", "temperature": 0.5}},
        "other input": {"lines": 12},
    }
    done = {"done": 2} if case == "all killed" else {}
    paths = [write_shard(tmp_path, number, **done) for number in (1, 3)]
    second = write_shard(tmp_path, 2, **changes.get(case, {}))
    output, lines = tmp_path / "out.jsonl", second.read_bytes().splitlines(keepends=True)
    if case == "twice":
        paths.append(write_shard(tmp_path, 2, name="again.jsonl"))
    if case == "cut":
        second.write_bytes(lines[0] + lines[2])
    if case == "no shard":
        OutputFile(second, {}, 1, force=True).close()
    if case == "edited":
        second.write_bytes(lines[1] + lines[0] + lines[2])
    if case == "no settings":
        (tmp_path / "out.2.jsonl.settings").unlink()
    if case == "no file":
        second = tmp_path / "none"
    if case == "there":
        output.write_text("kept")
    if case == "two":
        del paths[0]
    before = output.read_bytes() if output.exists() else None
    with pytest.raises(BadRequestError, match=said):
        merge([*([] if case == "absent" else [second]), *paths], output)
    assert (output.read_bytes() if output.exists() else None) == before
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_readme_covers_every_line() -> None:
    text = (ROOT / "tinker_local" / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- shards -->\n```bash\n(.*?)```", text, re.DOTALL)
    assert block
    indices = {"SLURM_ARRAY_TASK_ID": range(1, 17), "JOB_COMPLETION_INDEX": range(16)}
    for variable, numbers in indices.items():
        template = next(line for line in block[1].splitlines() if f"${variable}.jsonl" in line)
        script = "\n".join(f"{variable}={i}; printf '%s ' {template}; echo" for i in numbers)
        lines = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
        words = [line.split() for line in lines.splitlines()]
        assert {str(Shard.parse(word[word.index("--shard") + 1])) for word in words} == {
            f"{i}/16" for i in range(1, 17)
        }
        assert len({word[word.index("--output") + 1] for word in words}) == 16


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_sixteen_shards_of_which_three_are_killed(tiny: Path, tmp_path: Path) -> None:
    given, whole = tmp_path / "in", tmp_path / "whole"
    given.write_text("".join(json.dumps({"prompt": f"{i}: ab"}) + "\n" for i in range(1600)))
    assert run(*command(tiny, given, "--output", whole)).exit_code == 0
    outs = [tmp_path / f"out.{i}.jsonl" for i in range(1, 17)]
    arguments = {
        i: command(tiny, given, "--output", out, "--shard", f"{i}/16")
        for i, out in enumerate(outs, start=1)
    }
    killed = (2, 7, 16)
    for i in arguments:
        if i in killed:
            kill(list(map(str, arguments[i])), outs[i - 1])
        else:
            assert run(*arguments[i]).exit_code == 0
    result = run("merge", *outs, "--output", tmp_path / "merged")
    assert (result.exit_code, result.stderr.count("is not complete")) == (1, 3), result.stderr
    for i in killed:
        assert run(*arguments[i]).exit_code == 0
    assert run("merge", *outs, "--output", tmp_path / "merged").exit_code == 0
    assert (tmp_path / "merged").read_bytes() == whole.read_bytes()


def kill(arguments: list[str], out: Path) -> None:
    """Run a command, and kill its process once it has written something."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tinker_local.cli", *arguments], stderr=subprocess.PIPE
    )
    while not (out.exists() and out.stat().st_size) and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL, process.communicate()
