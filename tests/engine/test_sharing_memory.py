"""Which contexts are let go, and that clients do not notice."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient
from tinker_local.engine.sharing import ContextLimit
from tinker_local.options import KvType

PROMPT = ModelInput.from_ints(list(range(100, 140)))
GREEDY = SamplingParams(max_tokens=8, temperature=0, stop=[])


class Holder:
    def __init__(self, memory_share: float = 1 / 2) -> None:
        self.memory_share = memory_share
        self.n_asked = 0

    def ask_to_release(self) -> None:
        self.n_asked += 1


def test_the_longest_idle_is_asked_first() -> None:
    limit, holders = ContextLimit(), [Holder() for _ in range(4)]
    for holder in holders[:3]:
        limit.opened(holder)
    assert [h.n_asked for h in holders] == [0, 0, 0, 0], "all are in use"
    limit.idle(holders[1])
    assert [h.n_asked for h in holders] == [0, 1, 0, 0]
    limit.idle(holders[0])
    limit.idle(holders[2])
    limit.busy(holders[0])
    limit.opened(holders[3])
    assert [h.n_asked for h in holders] == [0, 1, 1, 0]
    limit.closed(holders[0])
    limit.opened(holders[1])
    assert [h.n_asked for h in holders] == [0, 1, 1, 0]


def test_large_contexts_count_more() -> None:
    limit, small, large = ContextLimit(), [Holder(0.1) for _ in range(10)], Holder(0.35)
    for holder in small:
        limit.opened(holder)
        limit.idle(holder)
    assert not any(h.n_asked for h in small), "ten tenths fit"
    limit.opened(large)
    assert [h.n_asked for h in small] == [1] * 4 + [0] * 6


@pytest.mark.parametrize(("memory", "n_open"), [(64 << 30, 10), (0, 2)])
def test_unset_it_is_by_memory(
    memory: int, n_open: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinker_local.engine.engine.memory_of", lambda devices: memory)
    opened = open_ten(tmp_path, None)
    wait_for(n_open, opened)
    for client in opened:
        tokens(client)
    wait_for(n_open, opened)


def test_what_a_context_takes(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "model.gguf")
    sizes = {
        (n_ctx, kv_type): context_bytes(path, n_ctx, kv_type)
        for n_ctx in (512, 1024)
        for kv_type in ("f16", "f32")
    }
    cache = sizes[1024, "f16"] - sizes[512, "f16"]
    assert cache > 0
    assert sizes[1024, "f32"] - sizes[512, "f32"] == 2 * cache
    assert sizes[512, "f32"] - sizes[512, "f16"] == cache


def context_bytes(path: Path, n_ctx: int, kv_type: KvType) -> int:
    with ServiceClient(n_ctx=n_ctx, kv_type=kv_type) as service:
        context = service.create_sampling_client(base_model=str(path))._engine._loop._context
        assert context is not None
        return context.n_bytes


@pytest.fixture
def clients(tmp_path: Path) -> list[SamplingClient]:
    """Ten adapters of one base, in a service that keeps two contexts."""
    return open_ten(tmp_path, 2)


def open_ten(tmp_path: Path, n_contexts: int | None) -> list[SamplingClient]:
    base = write_random_model(tmp_path / "base.gguf")
    service = ServiceClient(n_ctx=512, n_contexts=n_contexts, kv_type="f32", flash_attn=False)
    adapters = [random_adapter(base, seed=n).write(tmp_path / f"{n}.gguf") for n in range(10)]
    return [service.create_sampling_client(str(path), str(base)) for path in adapters]


def n_open(clients: list[SamplingClient]) -> int:
    return sum(client._engine._loop._context is not None for client in clients)


def wait_for(n: int, clients: list[SamplingClient]) -> None:
    for _ in range(500):
        if n_open(clients) == n:
            return
        time.sleep(0.01)
    raise AssertionError(f"{n_open(clients)} contexts are open")


def tokens(client: SamplingClient) -> list[int]:
    return client.sample(PROMPT, 1, GREEDY).result(timeout=60).sequences[0].tokens


def test_ten_adapters_share_two_contexts(clients: list[SamplingClient]) -> None:
    assert len({id(client._engine.model) for client in clients}) == 1
    wait_for(2, clients)
    first = [tokens(client) for client in clients]
    assert len({tuple(t) for t in first}) > 5, "the adapters make no difference"
    wait_for(2, clients)
    assert [tokens(client) for client in clients] == first


def test_all_at_once(clients: list[SamplingClient]) -> None:
    expected = [tokens(client) for client in clients]
    found: list[list[int]] = [[] for _ in clients]

    def run(n: int) -> None:
        for _ in range(5):
            found[n] = tokens(clients[n])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
    wait_for(2, clients)
