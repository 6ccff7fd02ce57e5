"""Files of requests: what a line may ask, what is answered, and how an interrupted run continues."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from tests.long import few
from tests.random_model import Shape, write_random_model
from tinker_local import ModelInput, SamplingParams, ServiceClient
from tinker_local.batch import lines
from tinker_local.cli import app

N_LINES = 500
SETTINGS = ["--n-ctx", "256", "--seed", "5", "--max-tokens", "12"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", shape=Shape(n_layer=2))


def run(*arguments: str | Path, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), input=text)


def sample(tiny: Path, *arguments: str | Path, text: str | bytes | None = None) -> Result:
    return run("sample", "--model", tiny, *SETTINGS, *arguments, text=text)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, *items: Any) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def prompts(path: Path, n: int = N_LINES) -> Path:
    rng = random.Random(0)
    items = [
        {"prompt": f"{i}: " + "ab " * rng.randrange(20), "id": f"p{i}", "num_samples": rng.randrange(1, 3)}
        for i in range(n)
    ]
    return write(path, *items)


def test_each_line_says_what_it_wants(tiny: Path, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = [
        {"prompt": "ab", "id": 7, "max_tokens": 3, "label": {"kept": [1.5, None, "é"]}},
        {"tokens": [1, 2, 3], "num_samples": 2, "seed": 11, "temperature": 0.5, "top_k": 20, "top_p": 0.9},
        {"prompt": "cd", "stop": [5], "max_tokens": None},
        {"prompt": "cd", "logit_bias": {"65": 90}, "presence_penalty": 2, "min_p": 0.9, "max_tokens": 4},
    ]
    result = sample(
        tiny,
        "--logit-bias",
        "66=90",
        "--input",
        write(tmp_path / "in", *asked),
        "--output",
        tmp_path / "out",
    )
    assert result.exit_code == 0, result.output
    answers = read(tmp_path / "out")
    assert [answer["line"] for answer in answers] == [1, 2, 3, 4]
    assert [s["tokens"] for s in answers[3]["sequences"]] == [[65] * 4]
    assert answers[0]["sequences"][0]["tokens"] == [66] * 3
    for given, answer in zip(asked, answers, strict=True):
        assert {key: answer[key] for key in given} == given
    assert len(answers[0]["sequences"][0]["tokens"]) == 3
    assert len(answers[2]["sequences"][0]["tokens"]) > 12
    client = ServiceClient(n_ctx=256).create_sampling_client(base_model=str(tiny))
    bias = {66: 90.0}
    params = SamplingParams(max_tokens=12, seed=11, temperature=0.5, top_k=20, top_p=0.9, logit_bias=bias)
    expected = client.sample(ModelInput.from_ints([1, 2, 3]), 2, params).result()
    assert [s["tokens"] for s in answers[1]["sequences"]] == [s.tokens for s in expected.sequences]
    assert "seed" in answers[0]
    assert answers[0]["seed"] != answers[2]["seed"]
    params = SamplingParams(max_tokens=3, seed=answers[0]["seed"], logit_bias=bias)
    prompt = ModelInput.from_ints(answers[0]["prompt_tokens"])
    again = client.sample(prompt, 1, params).result().sequences[0]
    assert answers[0]["sequences"][0]["tokens"] == again.tokens
    assert answers[0]["sequences"][0]["text"] == client.get_tokenizer().decode(again.tokens)


def test_logprobs(tiny: Path, tmp_path: Path) -> None:
    both = ({"prompt": "ab", key: 2, "id": "b"} for key in ("top_k", "topk_prompt_logprobs"))
    given = write(tmp_path / "in", {"tokens": [1, 2, 3]}, *both)
    result = run("logprobs", "--model", tiny, "--n-ctx", "256", "--input", given, "--output", "-")
    assert result.exit_code == 0, result.output
    first, second, third = [json.loads(line) for line in result.stdout.splitlines()]
    client = ServiceClient(n_ctx=256).create_sampling_client(base_model=str(tiny))
    expected = client.compute_logprobs(ModelInput.from_ints([1, 2, 3])).result()
    assert first["logprobs"] == pytest.approx(expected, abs=1e-5)
    assert first["sum"] == pytest.approx(sum(first["logprobs"][1:]))
    assert "topk_logprobs" not in first
    assert second["id"] == "b"
    for answer in (second, third):
        assert [len(entry) for entry in answer["topk_logprobs"][1:]] == [2] * (len(answer["tokens"]) - 1)


def test_messages_go_through_the_template(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Say a word."}]
    given = write(tmp_path / "in", {"messages": messages}, {"prompt": "Say a word."})
    answers = [
        [json.loads(line) for line in run(*command, "--n-ctx", "256", "--input", given).stdout.splitlines()]
        for command in (["sample", "--chat", "--max-tokens", "2"], ["logprobs"])
    ]
    sampled, scored = answers
    assert sampled[0]["prompt_tokens"] == sampled[1]["prompt_tokens"]
    assert sampled[0]["prompt_tokens"][: len(scored[0]["tokens"])] == scored[0]["tokens"]
    assert len(scored[0]["tokens"]) < len(sampled[0]["prompt_tokens"]), "the head of the turn to come"


BAD = [
    (b"nonsense", "not JSON"),
    (b"[1]", "must be an object"),
    (b"{}", "it has none"),
    (b'{"prompt": "a", "tokens": [1]}', "it has prompt and tokens"),
    (b'{"prompt": 3}', "must be a string"),
    (b'{"tokens": [true]}', "must be a list of token ids"),
    (b'{"tokens": [400000]}', "token 0 is 400000"),
    (b'{"messages": []}', "messages is []"),
    (b'{"messages": [{"role": "user", "content": "x"}]}', "no chat template"),
    (b'{"prompt": "a", "temprature": 0}', "a misspelt 'temperature'"),
    (b'{"prompt": "a", "temperature": -1}', "temperature is -1"),
    (b'{"prompt": "a", "seed": null}', "seed is None"),
    (b'{"prompt": "a", "sequences": 3}', "reserved for the output"),
    (b'{"prompt": "a", "x": NaN}', "not a JSON number"),
    (b'{"prompt": "a", "x": 1e999}', "not JSON"),
    (b'{"prompt": "\xff"}', "not JSON"),
    (b'{"prompt": "\\ud800"}', "surrogate"),
    (b'{"prompt": ""}', "prompt is empty"),
    (b'{"prompt": "a", "max_tokens": 300}', "holds 256"),
    (b"[" * 100_000, "the line is"),
]


def test_a_bad_line_has_an_error_and_the_others_answers(tiny: Path, tmp_path: Path) -> None:
    good = b'{"prompt": "ab"}'
    text = b"\n\n".join(b"\n".join((bad, good)) for bad, _ in BAD)
    result = sample(tiny, "--input", "-", "--output", tmp_path / "out", text=b"\xef\xbb\xbf" + text)
    assert result.exit_code == 1
    assert f"{len(BAD)} lines could not be answered" in result.stderr
    answers = read(tmp_path / "out")
    assert [answer["line"] for answer in answers] == [3 * i + j for i in range(len(BAD)) for j in (1, 2)]
    for (_, said), failed, answered in zip(BAD, answers[::2], answers[1::2], strict=True):
        assert said in failed["error"]
        assert "error" not in answered
        assert answered["sequences"]
    again = sample(tiny, "--input", "-", "--output", tmp_path / "out", text=b"\xef\xbb\xbf" + text)
    assert again.exit_code == 1, "errors of earlier runs count"
    assert read(tmp_path / "out") == answers


def test_a_line_that_is_too_long(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST", 1000)
    text = json.dumps({"prompt": "a" * 300_000}) + '\n{"prompt": "b"}'
    failed, answered = map(json.loads, sample(tiny, "--input", "-", text=text).stdout.splitlines())
    assert failed["line"] == 1
    assert "more than" in failed["error"]
    assert (answered["line"], answered["prompt"]) == (2, "b")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("n_times", few(1, [2, 6]))
def test_interrupted_again_and_again(tiny: Path, tmp_path: Path, n_times: int) -> None:
    n_asked = 250 if n_times == 2 else N_LINES
    given = prompts(tmp_path / "in", n_asked)
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = ["sample", "--model", str(tiny), *SETTINGS, "--batch-invariant", "--n-threads", "1"]
    command += ["--input", str(given), "--output"]
    assert run(*command, whole).exit_code == 0
    assert len(read(whole)) == n_asked
    rng, seen = random.Random(1), []
    signals = [signal.SIGINT, signal.SIGKILL] * (n_times // 2)
    rng.shuffle(signals)
    for number, sent in enumerate(signals):
        process = subprocess.Popen(
            [sys.executable, "-m", "tinker_local.cli", *command, str(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        # at most this far: there must be something left to interrupt
        moment = rng.randrange(n_asked * number // (n_times + 1), n_asked * (number + 1) // (n_times + 1))
        while process.poll() is None and n_lines(out) < moment:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.02)
        assert process.poll() is None, "it ended by itself"
        process.send_signal(sent)
        said = process.communicate(timeout=60)[1].decode()
        if sent == signal.SIGINT and "lines are written" in said:  # it was not still starting
            assert process.returncode == 130, said
        seen.append(n_lines(out))
        if sent == signal.SIGKILL and number % 2:  # what a power cut can do to the last line
            with out.open("r+b") as file:
                file.truncate(max(0, out.stat().st_size - rng.randrange(40)))
    assert 0 < seen[-1] < n_asked
    assert sum(a < b for a, b in itertools.pairwise(seen)) >= (n_times - 1) * 5 // 9, seen
    result = run(*command, out)
    assert result.exit_code == 0, result.output
    assert [answer["line"] for answer in read(out)] == list(range(1, n_asked + 1))
    assert out.read_bytes() == whole.read_bytes()
    told = json.loads(run(*command, out, "--json").stdout)
    assert (told["lines"], told["before"], told["failed"]) == (n_asked, n_asked, 0)


def n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_sigterm_leaves_an_output_to_go_on_with(tiny: Path, tmp_path: Path) -> None:
    given, out = prompts(tmp_path / "in"), tmp_path / "out"
    command = [sys.executable, "-m", "tinker_local.cli", "sample", "--model", str(tiny), *SETTINGS]
    process = subprocess.Popen(
        [*command, "--input", str(given), "--output", str(out)], stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and n_lines(out) < 5:
        time.sleep(0.002)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert "run the same command again to continue" in said
    assert sample(tiny, "--input", given, "--output", out).exit_code == 0
    assert [answer["id"] for answer in read(out)] == [f"p{i}" for i in range(N_LINES)]


@pytest.mark.parametrize("cut", [b"", b'{"line": 4, "pro', b"\0" * 50, b'{"line": 4\0\0\0\n\0\0', b"{"])
def test_what_a_crash_leaves_of_the_last_line_is_made_again(tiny: Path, tmp_path: Path, cut: bytes) -> None:
    given, out = prompts(tmp_path / "in", 6), tmp_path / "out"
    assert sample(tiny, "--input", given, "--output", out, "--batch-invariant").exit_code == 0
    whole = out.read_bytes()
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]) + cut)
    result = sample(tiny, "--input", given, "--output", out, "--batch-invariant", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["before"] == 3
    assert out.read_bytes() == whole


def test_more_lines_at_the_end_of_the_input_are_done_next(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sample(tiny, "--input", prompts(tmp_path / "in", 3), "--output", out)
    before = out.read_bytes()
    assert sample(tiny, "--input", prompts(tmp_path / "in", 5), "--output", out).exit_code == 0
    assert out.read_bytes().startswith(before)
    assert len(read(out)) == 5


def test_an_output_of_another_vision_tower_is_left_alone(tiny: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(tiny, tmp_path / "tiny.gguf"))
    given, out = prompts(tmp_path / "in", 2), tmp_path / "out"
    tower = tmp_path / "mmproj-tiny.gguf"
    tower.write_bytes(b"one")
    assert sample(model, "--input", given, "--output", out).exit_code == 0
    tower.write_bytes(b"two")
    result = sample(model, "--input", given, "--output", out)
    assert result.exit_code == 1
    assert "begun with tower = 'mmproj-tiny.gguf" in result.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--temperature", "0.5"], "begun with temperature = 1.0"),
        (["--seed", "6"], "begun with seed = 5"),
        (["--kv-type", "f32"], "begun with kv_type"),
        (["--num-samples", "2"], "begun with num_samples = 1"),
        (["other input"], "not the answer to line 2"),
        (["shorter input"], "more lines than this input"),
        (["other model"], "begun with model = 'tiny.gguf"),
        (["no settings"], "exists, but not out.settings"),
        (["damaged settings"], "is damaged"),
        (["edited output"], "did not write its line 1"),
        (["locked"], "another process is writing"),
    ],
)
def test_an_output_of_something_else_is_left_alone(
    tiny: Path, tmp_path: Path, change: list[str], said: str
) -> None:
    given, out = prompts(tmp_path / "in", 4), tmp_path / "out"
    assert sample(tiny, "--input", given, "--output", out).exit_code == 0
    options = [] if change[0][0] != "-" else change
    model, lock = tiny, FileLock(tmp_path / ".out.lock")
    items = read(given)
    if change == ["other input"]:
        items[1]["prompt"] += "!"
        write(given, *items)
    if change == ["shorter input"]:
        write(given, *items[:2])
    if change == ["other model"]:
        model = write_random_model(tmp_path / "tiny.gguf", shape=Shape(n_layer=2), seed=1)
    if change == ["no settings"]:
        (tmp_path / "out.settings").unlink()
    if change == ["damaged settings"]:
        (tmp_path / "out.settings").write_text("{")
    if change == ["edited output"]:
        out.write_bytes(out.read_bytes().replace(b"\n", b"\r\n"))
    if change == ["locked"]:
        lock.acquire()
    before = out.read_bytes()
    result = sample(model, "--input", given, "--output", out, *options)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert out.read_bytes() == before
    lock.release()
    assert sample(model, "--input", given, "--output", out, "--force").exit_code == 0


def test_without_a_seed_one_is_drawn_and_kept(tiny: Path, tmp_path: Path) -> None:
    given, outs = prompts(tmp_path / "in", 3), [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        arguments = ("sample", "--model", tiny, "--max-tokens", "2", "--input", given, "--output", out)
        assert run(*arguments).exit_code == 0
        seeds = [answer["seed"] for answer in read(out)]
        out.write_bytes(out.read_bytes().splitlines(keepends=True)[0])
        assert run(*arguments).exit_code == 0
        assert [answer["seed"] for answer in read(out)] == seeds
    assert read(outs[0])[0]["seed"] != read(outs[1])[0]["seed"]


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="needs pipes")
def test_answers_come_before_the_input_ends(tiny: Path) -> None:
    command = [sys.executable, "-m", "tinker_local.cli", "sample", "--model", str(tiny), "--input", "-"]
    process = subprocess.Popen(
        [*command, "--max-tokens", "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for number in range(1, 4):
        process.stdin.write('{"prompt": "ab"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["line"] == number
    process.stdin.close()
    assert process.wait(timeout=60) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_on_a_terminal(tiny: Path, tmp_path: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "tinker_local.cli", "sample", "--model", str(tiny), *SETTINGS]
    command += ["--input", str(prompts(tmp_path / "in", 200)), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            data = os.read(leader, 4096)
        except OSError:  # how Linux says that the other end was closed
            break
        if not data:
            break
        shown += data
    assert process.wait(timeout=60) == 0
    for part in (b"Sampling", b"lines", b"tokens/s", b" left", b"200 lines, "):
        assert part in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "x", "--input", "y"],
        ["sample", "x", "--output", "y"],
        ["sample", "x", "--force"],
        ["logprobs", "x", "--input", "y"],
        ["logprobs", "--output", "y"],
    ],
)
def test_misuse_is_status_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_input_is_not_written_over(tiny: Path, tmp_path: Path) -> None:
    given = prompts(tmp_path / "in", 3)
    before = given.read_bytes()
    assert sample(tiny, "--input", given, "--output", given, "--force").exit_code == 2
    assert given.read_bytes() == before
    result = sample(tiny, "--input", tmp_path / "nothing", "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "cannot be read" in result.stderr
