"""Ten adapters on one base, used in turn: the cost of a switch, and the memory of each adapter.

    python -m tests.benchmarks.adapters [MODEL] [--adapters 10] [--rounds 20]

Measures the time to the first token of a new prompt, alternately with the same adapter as before and with
another one. The adapters have random factors for all matrices of the layers. The goal after a switch is at
most 1.2 times the time without one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from itertools import cycle
from pathlib import Path

import numpy as np

from tests.benchmarks.memory import resident
from tests.benchmarks.timing import Pairs, alternate
from tests.random_adapter import random_adapter
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient
from tinker_local.store.model_store import ModelStore

N_PROMPT, N_CTX, RANK = 32, 1024, 16
PARAMS = SamplingParams(max_tokens=1, temperature=0, stop=[])


class Prompts:
    """Prompts of random tokens, no two alike, so that the prefix cache never helps."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def next(self) -> ModelInput:
        return ModelInput.from_ints([int(token) for token in self._rng.integers(0, 256, N_PROMPT)])


def first_token(client: SamplingClient, prompts: Prompts) -> float:
    """Return the seconds to the first token of a prompt."""
    prompt = prompts.next()
    start = time.perf_counter()
    client.sample(prompt, 1, PARAMS).result()
    return time.perf_counter() - start


def measure(clients: list[SamplingClient], rounds: int) -> Pairs:
    """Time the first token after a switch (``ours``) and without a switch (``other``)."""
    prompts, turn = Prompts(1), cycle(clients)
    current = next(turn)

    def switch() -> float:
        nonlocal current
        current = next(turn)
        return first_token(current, prompts)

    return alternate(switch, lambda: first_token(current, prompts), rounds)


def open_all(service: ServiceClient, base: str, adapters: list[Path]) -> list[SamplingClient]:
    """Open the base and its adapters, use each once, and print how memory grows."""
    prompts = Prompts(2)
    client = service.create_sampling_client(base_model=base)
    first_token(client, prompts)
    size = resident()
    weights = Path(client._engine.model.path).stat().st_size
    kv = N_CTX * client._engine.model.kv_numbers * 2
    print(
        f"base: {size / 1e6:.0f} MB resident, {weights / 1e6:.0f} MB of weights, {kv / 1e6:.1f} MB of cache"
    )
    clients = []
    for path in adapters:
        clients.append(service.create_sampling_client(str(path), base))
        first_token(clients[-1], prompts)
        grown, size = resident() - size, resident()
        print(
            f"  + {grown / 1e6:6.1f} MB for an adapter of {path.stat().st_size / 1e6:.1f} MB and its cache"
        )
    assert len({id(c._engine.model) for c in (client, *clients)}) == 1, "the weights are there twice"
    return clients


def compare(base: Path, n_adapters: int, n_contexts: int | None, rounds: int) -> None:
    """Measure with ``n_contexts`` contexts in memory; None for the default."""
    with tempfile.TemporaryDirectory() as directory:
        adapters = [
            random_adapter(base, rank=RANK, seed=seed).write(Path(directory) / f"{seed}.gguf")
            for seed in range(n_adapters)
        ]
        with ServiceClient(n_ctx=N_CTX, n_contexts=n_contexts) as service:
            print(f"n_contexts: {n_contexts or 'default'}")
            pairs = measure(open_all(service, str(base), adapters), rounds)
    print(
        f"first token after a switch {1000 * pairs.ours:.1f} ms, after none {1000 * pairs.other:.1f} ms: "
        f"{1 / pairs.ratio:.2f} times (of the fastest: {1 / pairs.fastest:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default=ModelStore.default_name)
    parser.add_argument("--adapters", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    base = ModelStore().resolve(arguments.model)
    for n_contexts in (arguments.adapters + 1, None):  # each in a process of its own, for its memory
        given = (base, arguments.adapters, n_contexts, arguments.rounds)
        child = multiprocessing.get_context("spawn").Process(target=compare, args=given)
        child.start()
        child.join()


if __name__ == "__main__":
    main()
