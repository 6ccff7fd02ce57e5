"""Bounds on memory and on what waits: what goes over them is refused in words, and the rest goes on."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

from tests.random_checkpoints.planned import write_planned
from tests.random_checkpoints.plans import stored
from tests.random_model import Shape, write_random_model
from tinker_local import (
    BadRequestError,
    ModelInput,
    RateLimitError,
    RetryConfig,
    SamplingParams,
    ServiceClient,
)
from tinker_local.engine import engine
from tinker_local.llama import machine
from tinker_local.llama.context import Context, loaded_bytes
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.model import load_model
from tinker_local.options import Options

PROMPT = ModelInput.from_ints([1] * 200)
SHORT = SamplingParams(max_tokens=2, stop=[])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    return write_random_model(path, shape=Shape(n_ctx=1 << 24))


def open_service(**options: Any) -> ServiceClient:
    return ServiceClient(**{"n_ctx": 512, "n_threads": 1, **options})


def test_weights_that_are_too_large_are_not_loaded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "open_model", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(
        BadRequestError, match=r"tiny\.gguf take 1 MB, more than the 1 MB of memory that max_"
    ):
        open_service(max_memory_mb=1).create_sampling_client(base_model=str(model))
    monkeypatch.setattr(engine, "main_memory", lambda: 1000)
    with pytest.raises(BadRequestError, match="more than the 0 MB of memory that there are"):
        open_service().create_sampling_client(base_model=str(model))


@pytest.mark.parametrize("options", [{"kv_type": "f32"}, {"max_memory_mb": 100, "n_ctx": 1 << 18}])
def test_a_kv_cache_that_is_too_large_is_not_made(model: Path, options: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match=r"use a smaller n_ctx \(it is"):
        open_service(**{"n_ctx": 1 << 24, **options}).create_sampling_client(base_model=str(model))
    client = open_service().create_sampling_client(base_model=str(model))
    assert client.sample(PROMPT, 1, SHORT).result(60)


def test_a_kv_cache_that_has_no_room_now(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = open_service(n_ctx=1 << 16)
    monkeypatch.setattr(engine, "available_memory", lambda: 10**6)
    with pytest.raises(BadRequestError, match=r"KV cache, attention and logits .* more than the 1 MB"):
        service.create_sampling_client(base_model=str(model))
    monkeypatch.undo()
    assert service.create_sampling_client(base_model=str(model)).sample(PROMPT, 1, SHORT).result(60)


@pytest.mark.parametrize(
    ("name", "n_counted"),
    [
        ("llama", 4 * 16 * 256 * 4096),  # float32, heads, tokens, cells: 64 MiB, and llama.cpp takes 69
        ("deepseek_sparse, DeepSeek-V3.2", 4 * 4 * 256 * 4096),
        ("deepseek4, each kind of layer", 4 * 4 * 256 * 1024),  # four tokens have one key
        ("gemma3", None),
    ],
)
def test_attention_in_steps_counts(
    name: str, n_counted: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A float32 for each head, token and key, of one layer at a time; never more than llama.cpp takes."""
    path = tmp_path / "m.gguf"
    if name in stored():
        write_planned(path, name)
    else:
        shape = Shape(n_embd=256, n_head=16, n_head_kv=4, n_ctx=4096)
        write_random_model(path, "gemma3" if name == "gemma3" else "llama", shape)
    model = load_model(path, 0)
    plan = ContextPlan(n_ctx=4096, n_sequences=2, n_batch=256, n_rows=8, n_threads=1, flash_attn=False)
    with caplog.at_level(logging.DEBUG, logger="tinker_local.llama"):
        context = Context(model, plan)
    (mib,) = re.findall(r"compute buffer size = +([\d.]+) MiB", caplog.text)
    extra = plan.needed_bytes(model) - replace(plan, flash_attn=True).needed_bytes(model)
    assert 0 < extra <= float(mib) * 2**20
    assert n_counted is None or extra == n_counted
    assert context.n_bytes >= extra


def test_attention_in_steps_may_have_no_room(model: Path) -> None:
    limit = 50 + loaded_bytes() // 1_000_000  # what other tests have open counts, too
    given = {"n_ctx": 8192, "max_memory_mb": limit}
    with open_service(**given) as service:
        assert service.create_sampling_client(base_model=str(model)).sample(PROMPT, 1, SHORT).result(60)
    with pytest.raises(BadRequestError, match=rf"MB, more than the {limit:,} MB .* a smaller n_ubatch"):
        open_service(**given, flash_attn=False).create_sampling_client(base_model=str(model))


def test_what_is_open_counts(model: Path) -> None:
    with open_service(n_ctx=4096, kv_type="f32") as service:
        loop = service.create_sampling_client(base_model=str(model))._engine._loop
        assert loop._context is not None
        cells = 4096 * 6 * 2 * 2 * 16 * 4  # 6 layers of keys and values of 2 heads of 16 numbers
        assert cells < loop._context.least_bytes < 2 * cells
        assert loaded_bytes() >= model.stat().st_size + loop._context.least_bytes


def test_memory_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < machine.available_memory() <= machine.main_memory()
    group = tmp_path / "group"
    group.mkdir()
    for name, value in (
        ("max", "2000000"),
        ("current", "1500000"),
        ("stat", "anon 1\ninactive_file 100000"),
    ):
        (group / f"memory.{name}").write_text(value)
    monkeypatch.setattr(machine, "_groups", lambda controller: [group])
    assert (machine.main_memory(), machine.available_memory()) == (2_000_000, 600_000)
    (group / "memory.max").write_text("max\n")
    assert machine.main_memory() > 2_000_000


@pytest.mark.parametrize(
    ("files", "n_threads"),
    [
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "400000 100000"}, 4),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, 3),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, 8),
        ({}, 8),
    ],
    ids=str,
)
def test_threads_of_a_container(
    files: dict[str, str], n_threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By both versions of control groups; a part of a CPU is no thread, but there is always one."""
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(machine, "_groups", lambda controller: [tmp_path / "none", tmp_path])
    monkeypatch.setattr(machine, "_n_cores", lambda: 8)
    assert machine.threads(Options()) == (n_threads, n_threads)
    assert machine.threads(Options(n_threads=16)) == (16, 16), "who asks for more gets more"
    assert machine.threads(Options(n_threads_batch=2)) == (n_threads, 2)


def test_threads_reach_llama_cpp(model: Path) -> None:
    """One token is computed by ``n_threads``, several by ``n_threads_batch``."""
    with open_service(n_threads=1, n_threads_batch=3) as service:
        client = service.create_sampling_client(base_model=str(model))
        context = client._engine._loop._context
        assert context is not None
        given = (llama_cpp.llama_n_threads, llama_cpp.llama_n_threads_batch)
        assert [of(context._handle) for of in given] == [1, 3]
        assert [context.threads_for(n) for n in (1, 2, 512)] == [1, 3, 3]


def test_too_many_requests(model: Path) -> None:
    with open_service(max_queue_mb=1) as service:
        client = service.create_sampling_client(base_model=str(model))
        futures, params = [], SamplingParams(max_tokens=200, stop=[])

        def submit() -> None:
            for _ in range(1000):
                futures.append(client.sample(PROMPT, 1, params))

        with pytest.raises(RateLimitError, match=r"requests wait or run, and take .* max_queue_mb"):
            submit()
        assert 100 < len(futures) < 1000
        for future in futures[1:]:
            future.cancel()
        assert futures[0].result(60)
        assert client.sample(PROMPT, 1, SHORT).result(60)


def test_with_retries_they_wait(model: Path) -> None:
    with open_service(max_queue_mb=1) as service:
        config = RetryConfig(max_connections=None, retry_delay_base=0.01, retry_delay_max=0.1)
        client = service.create_sampling_client(base_model=str(model), retry_config=config)
        start = time.monotonic()
        futures = [client.sample(PROMPT, 1, SHORT) for _ in range(700)]
        assert all(len(future.result(120).sequences[0].tokens) == 2 for future in futures), start


@pytest.mark.parametrize(
    "more", [{"num_samples": 60_000}, {"topk_prompt_logprobs": 300}, {"prompt_alt_tokens_k": 1000}], ids=str
)
def test_an_answer_that_is_too_large(model: Path, more: dict[str, Any]) -> None:
    with open_service(max_queue_mb=1, n_ctx=1024) as service:
        client = service.create_sampling_client(base_model=str(model))
        prompt = ModelInput.from_ints([1] * 900)
        arguments = {"num_samples": 1, "sampling_params": SHORT, **more}
        with pytest.raises(
            BadRequestError, match=r"the answer could take .* MB, and max_queue_mb allows 1"
        ):
            client.sample(prompt, **arguments)
        assert client.sample(prompt, 1, SHORT).result(60)
