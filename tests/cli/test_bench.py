"""``tinker-local bench``: the report is consistent. No test asserts a time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.random_model import Architecture, Quantization, Shape, write_random_model
from tinker_local.bench import types
from tinker_local.bench.bare_loop import BareLoop
from tinker_local.bench.memory import memory_read, weight_bytes
from tinker_local.bench.report import BenchReport
from tinker_local.bench.rounds import fit, take_turns
from tinker_local.bench.speed import EngineSpeed
from tinker_local.bench.threads import ThreadSpeed, recommended_threads, thread_counts
from tinker_local.bench.types import TypeSpeed, measure_types
from tinker_local.cli import app
from tinker_local.gguf.parts import ModelFiles
from tinker_local.llama.context import Context
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.machine import default_threads
from tinker_local.llama.model import load_model

SHAPE = Shape(n_embd=256, n_ff=256, n_layer=2)


def bench(path: Path, *arguments: str) -> str:
    command = ["bench", "--model", str(path), "--seconds", "1", "--n-threads", "1", *arguments]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "tiny.gguf", shape=SHAPE, quantization=Quantization.Q8_0)
    found: dict[str, Any] = json.loads(bench(path, "--json"))
    assert [speed["n_samples"] for speed in found["speeds"]] == [0, 1, 8, 32]
    for speed in found["speeds"]:
        assert speed["ours"] > 0
        assert speed["bare"] > 0
        assert speed["n_tokens"] % max(1, speed["n_samples"]) == 0
    assert (found["n_threads"], found["n_threads_batch"]) == (1, 1)
    assert found["weight_bytes"] == weight_bytes(path)
    assert found["bandwidth"] == pytest.approx(found["weight_bytes"] * found["speeds"][1]["bare"])
    if found["on_cpu"]:
        assert [speed["n_threads"] for speed in found["threads"]] == thread_counts()
        assert {found["recommended_threads"], found["recommended_threads_batch"]} <= {*thread_counts()}
        assert [speed["type"] for speed in found["types"]] == list(types.CANDIDATES)
        assert set(found["recommended_types"]) == {"score", "sample", "batch"}


@pytest.mark.parametrize("architecture", ["mamba", "qwen3moe"])
def test_for_people(architecture: Architecture, tmp_path: Path) -> None:
    said = bench(write_random_model(tmp_path / "tiny.gguf", architecture, SHAPE))
    assert "sample 8 at once" in said
    assert ("sample 32 at once" in said) == (architecture != "mamba"), "it has eight states"
    assert "ours/bare" in said
    assert "MB of weights per token" in said


def test_the_bare_loop_computes_what_it_says(tmp_path: Path) -> None:
    model = load_model(write_random_model(tmp_path / "tiny.gguf", shape=SHAPE), 0, "none")
    plan = ContextPlan(n_ctx=256, n_sequences=4, n_batch=64, n_rows=64, n_threads=1)
    context = Context(model, plan)
    bare = BareLoop(context)
    prompt = np.arange(10, 100, dtype=np.int32)
    assert bare.score(prompt) > 0
    assert context.sequence_length(0) == 90
    assert bare.sample(prompt[:20], 3, 5) > 0
    assert [context.sequence_length(i) for i in range(4)] == [25, 25, 25, 0]
    context.set_threads(2)
    assert bare.sample(prompt[:20], 1, 5) > 0
    assert [context.sequence_length(i) for i in range(4)] == [25, 0, 0, 0]


def test_bytes_of_weights(tmp_path: Path) -> None:
    def bytes_of(path: Path, *without: str) -> int:
        tensors = ModelFiles.read(path).tensors
        return sum(t.n_bytes for name, t in tensors.items() if name not in without)

    tied = write_random_model(tmp_path / "tied.gguf")
    assert weight_bytes(tied) == bytes_of(tied)
    untied = write_random_model(tmp_path / "untied.gguf", tied=False)
    assert weight_bytes(untied) == bytes_of(untied, "token_embd.weight")
    experts = write_random_model(tmp_path / "experts.gguf", "qwen3moe")
    in_experts = sum(t.n_bytes for n, t in ModelFiles.read(experts).tensors.items() if "_exps." in n)
    assert weight_bytes(experts) == bytes_of(experts) - in_experts // 2, "two of four serve a token"


def test_memory_is_read() -> None:
    assert memory_read(1, rounds=1) > 1e6


def test_types_of_rows_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "tiny.gguf", shape=Shape(n_embd=96, n_ff=64, n_layer=1))
    found = measure_types(path, types.CANDIDATES, (1, 1), 0.1, 1)
    assert [speed.type for speed in found] == ["bf16", "q8_0", "q4_1", "q4_0", "iq4_nl"]
    assert measure_types(write_random_model(tmp_path / "m.gguf", "mamba"), ["q8_0"], (1, 1), 0.1, 1) == []


def test_turns_and_fits() -> None:
    order: list[str] = []

    def work(name: str) -> float:
        order.append(name)
        return 1.0

    times = take_turns({"a": lambda: work("a"), "b": lambda: work("b")}, 3, 60)
    assert "".join(order) == "abbaab"
    assert times == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert take_turns({"a": lambda: 1.0}, 3, -1) == {"a": [1.0]}, "no time: one round"
    assert [fit(1.0, 0.1, 2, 64), fit(1.0, 2.0, 2, 64), fit(1.0, 0.0, 2, 64)] == [10, 2, 64]


def test_recommendations() -> None:
    threads = [
        ThreadSpeed(1, 100, 28, 20),
        ThreadSpeed(4, 390, 28.5, 80),
        ThreadSpeed(8, 400, 10, 81),
    ]
    assert recommended_threads(threads) == (1, 4), "more are hardly better"
    kinds = [TypeSpeed("q4_1", 100, 50, 80), TypeSpeed("q4_0", 290, 52, 200)]
    report = BenchReport("q4_1", 4, 8, True, 0.0, [EngineSpeed(1, 1, 1, 1, 1)], 1, 1, 1, threads, kinds)
    assert report.recommended_types == {"score": "q4_0", "sample": "q4_0", "batch": "q4_0"}
    said = "\n".join(report.recommendations)
    assert "threads: --n-threads 1 --n-threads-batch 4" in said
    default = replace(report, threads=[ThreadSpeed(default_threads(), 1, 1, 1)]).recommendations
    assert f"threads: {default_threads()}, the default" in default
    assert "scoring: q4_0, whose layers are 2.9 times as fast as q4_1's" in said
    assert "one sample: q4_1, the present one" in said
    assert "Other programs" not in said
    assert "Other programs" in replace(report, load=1e6).recommendations[0]
