"""Which contexts are let go, and that clients do not notice."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient
from tinker_local.engine.context_limit import ContextLimit

PROMPT = ModelInput.from_ints(list(range(100, 140)))
GREEDY = SamplingParams(max_tokens=8, temperature=0, stop=[])


class Holder:
    def __init__(self) -> None:
        self.n_asked = 0

    def ask_to_release(self) -> None:
        self.n_asked += 1


def test_the_longest_idle_is_asked_first() -> None:
    limit, holders = ContextLimit(2), [Holder() for _ in range(4)]
    for _ in range(3):
        limit.opened()
    assert [h.n_asked for h in holders] == [0, 0, 0, 0], "all are in use"
    limit.idle(holders[1])
    assert [h.n_asked for h in holders] == [0, 1, 0, 0]
    limit.idle(holders[0])
    limit.idle(holders[2])
    limit.busy(holders[0])
    limit.opened()
    assert [h.n_asked for h in holders] == [0, 1, 1, 0]
    limit.closed(holders[0])
    limit.opened()
    assert [h.n_asked for h in holders] == [0, 1, 1, 0]


@pytest.fixture
def clients(tmp_path: Path) -> list[SamplingClient]:
    """Ten adapters of one base, in a service that keeps two contexts."""
    base = write_random_model(tmp_path / "base.gguf")
    service = ServiceClient(n_ctx=512, n_contexts=2, kv_type="f32", flash_attn=False)
    adapters = [random_adapter(base, seed=n).write(tmp_path / f"{n}.gguf") for n in range(10)]
    return [service.create_sampling_client(str(path), str(base)) for path in adapters]


def n_open(clients: list[SamplingClient]) -> int:
    return sum(client._engine._loop._context is not None for client in clients)


def wait_for_two(clients: list[SamplingClient]) -> None:
    for _ in range(500):
        if n_open(clients) == 2:
            return
        time.sleep(0.01)
    raise AssertionError(f"{n_open(clients)} contexts are open")


def tokens(client: SamplingClient) -> list[int]:
    return client.sample(PROMPT, 1, GREEDY).result(timeout=60).sequences[0].tokens


def test_ten_adapters_share_two_contexts(clients: list[SamplingClient]) -> None:
    assert len({id(client._engine.model) for client in clients}) == 1
    wait_for_two(clients)
    first = [tokens(client) for client in clients]
    assert len({tuple(t) for t in first}) > 5, "the adapters make no difference"
    wait_for_two(clients)
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
    wait_for_two(clients)
