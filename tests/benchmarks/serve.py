"""Tinker's SDK against ``tinker-local serve``, beside the client in this process: what does HTTP cost?

    python -m tests.benchmarks.serve [--type q4_1] [--requests N] [--max-tokens N] [--rounds N] [--flood N]

The server is a process of its own, with the model and the options of the client here. The two take turns
with the same work: requests that are submitted at once, then small ones one after the other. Answers are
compared. ``--flood`` requests of one token are then in flight at a time, and the server's memory is read
before and after. Needs the package ``tinker``.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tinker

from tests.benchmarks.requantized import command_line, default_model
from tests.benchmarks.timing import alternate
from tinker_local import ModelInput, SamplingParams, ServiceClient

N_CTX = 4096
SMALL = 40  # requests one after the other, in each round
KEY = "tml-local"

Submit = Callable[[list[int], int, int], Future[Any]]


@contextmanager
def serving(model: Path) -> Iterator[tuple[str, int]]:
    """Run the command; gives its address and its process id."""
    command = [sys.executable, "-m", "tinker_local.cli", "serve", "--port", "0", "--n-ctx", str(N_CTX)]
    command += ["--model", str(model), "--no-prefix-cache"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"TINKER_BASE_URL=(\S+)", process.stdout.readline())
        assert found
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait()


def resident_mb(pid: int) -> float:
    """Return the resident set of a process (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def submit_here(model: Path) -> Submit:
    client = ServiceClient(n_ctx=N_CTX, prefix_cache=False).create_sampling_client(base_model=str(model))

    def submit(tokens: list[int], max_tokens: int, seed: int) -> Future[Any]:
        params = SamplingParams(max_tokens=max_tokens, stop=[], seed=seed)
        return client.sample(ModelInput.from_ints(tokens), 1, params)

    return submit


def submit_there(url: str, model: Path) -> Submit:
    service = tinker.ServiceClient(base_url=url, api_key=KEY)
    client = service.create_sampling_client(base_model=model.stem).result()

    def submit(tokens: list[int], max_tokens: int, seed: int) -> Future[Any]:
        params = tinker.SamplingParams(max_tokens=max_tokens, stop=[], seed=seed)
        found: Future[Any] = client.sample(tinker.ModelInput.from_ints(tokens), 1, params)
        return found

    return submit


def prompts(n: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1000, 40_000, int(rng.integers(8, 96))).tolist() for _ in range(n)]


def seconds_of(submit: Submit, given: list[list[int]], max_tokens: int) -> float:
    start = time.perf_counter()
    futures = [submit(tokens, max_tokens, seed) for seed, tokens in enumerate(given)]
    for future in futures:
        assert len(future.result().sequences[0].tokens) == max_tokens
    return time.perf_counter() - start


def small_ones(submit: Submit) -> list[float]:
    """Return the seconds of small requests, one after the other."""
    found = []
    for seed in range(SMALL):
        start = time.perf_counter()
        submit([1000 + seed], 1, seed).result()
        found.append(time.perf_counter() - start)
    return found


def flood(submit: Submit, n: int, pid: int) -> None:
    before, given = resident_mb(pid), [[1000 + i % 5000] for i in range(n)]
    used, start = cpu_seconds(pid), time.perf_counter()
    seconds_of(submit, given, 1)
    took, used = time.perf_counter() - start, cpu_seconds(pid) - used
    print(
        f"{n} requests in flight: {took:.1f} s, nothing lost; {1e3 * used / n:.2f} ms of the server's CPU"
    )
    seconds_of(submit, given, 1)
    print(f"server's memory: {before:.0f} MB before, {resident_mb(pid):.0f} MB after two floods")


def main() -> None:
    parser: argparse.ArgumentParser = command_line(__doc__)
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flood", type=int, default=2000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    model, given = default_model(arguments.type), prompts(arguments.requests)
    with serving(model) as (url, pid):
        here, there = submit_here(model), submit_there(url, model)
        first = [submit(given[0], 8, 1).result().sequences[0].tokens for submit in (here, there)]
        assert first[0] == first[1], first
        n_tokens = arguments.requests * arguments.max_tokens
        pairs = alternate(
            lambda: seconds_of(there, given, arguments.max_tokens),
            lambda: seconds_of(here, given, arguments.max_tokens),
            arguments.rounds,
        )
        print(f"{arguments.requests} requests of {arguments.max_tokens} tokens, tokens per second:")
        print(f"  SDK {n_tokens / pairs.ours:8.1f}   here {n_tokens / pairs.other:8.1f}")
        print(f"  ratio {pairs.ratio:.3f} (median of rounds), {pairs.fastest:.3f} (fastest)")
        waits: tuple[list[float], list[float]] = ([], [])
        for _ in range(arguments.rounds):
            for found, submit in zip(waits, (there, here), strict=True):
                found += small_ones(submit)
        for name, found in zip(("SDK", "here"), waits, strict=True):
            p50, p99 = np.percentile(found, [50, 99]) * 1e3
            print(f"one small request, {name:4}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        flood(there, arguments.flood, pid)


if __name__ == "__main__":
    main()
