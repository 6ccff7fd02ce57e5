"""Tinker's SDK against ``tinker-local serve``, beside the client in this process: what does HTTP cost?

    python -m tests.benchmarks.serve [--type q4_1] [--requests N] [--max-tokens N] [--rounds N]
        [--streams N] [--flood N] [--connections N] [--only-streams]

The server is a process of its own, with the model and the options of the client here. The two take turns
with the same work: requests that are submitted at once, then half of them beside ``--streams`` clients that
get each token as it comes, then small ones one after the other. Answers are compared. ``--flood`` requests
of one token are then in flight at a time, and ``--connections`` open: a third idle, a third streaming, a
third of clients that read slowly. The server's memory is read before and after. A 0 leaves a part out.
Needs the package ``tinker``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tinker

from tests.benchmarks.requantized import command_line, default_model
from tests.benchmarks.timing import alternate
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient

N_CTX = 4096
SMALL = 40  # requests one after the other, in each round
KEY = "tml-local"
STREAMED = 64  # tokens of each stream
SLOW = 2048  # bytes that a slow client reads at a time, ten times a second

Submit = Callable[[list[int], int, int], Future[Any]]
Follow = Callable[[int], list[list[int]]]
"""Runs as many streams, and returns the tokens that each has brought."""


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


def client_here(model: Path) -> SamplingClient:
    return ServiceClient(n_ctx=N_CTX, prefix_cache=False).create_sampling_client(base_model=str(model))


def submit_here(client: SamplingClient) -> Submit:
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


def follow_here(client: SamplingClient) -> Follow:
    def follow(n: int) -> list[list[int]]:
        got: list[list[int]] = [[] for _ in range(n)]

        def follow_one(number: int) -> Future[Any]:
            params = SamplingParams(max_tokens=STREAMED, stop=[], seed=number)
            prompt = ModelInput.from_ints([65 + number])
            return client.sample(prompt, 1, params, on_token=lambda _, token: got[number].append(token))

        for future in [follow_one(number) for number in range(n)]:
            future.result()
        return got

    return follow


def follow_there(url: str, model: Path) -> Follow:
    def follow(n: int) -> list[list[int]]:
        with selectors.DefaultSelector() as selector:
            for number in range(n):
                selector.register(open_stream(url, model, number), selectors.EVENT_READ, bytearray())
            return [tokens_of(data) for data in read_all(selector)]

    return follow


def open_stream(url: str, model: Path, seed: int) -> socket.socket:
    """Ask for a stream over a bare socket: Python's packages would take more CPU time than the server."""
    address = urlsplit(url)
    asked = {"model": model.stem, "prompt": [65 + seed], "max_tokens": STREAMED, "seed": seed}
    body = json.dumps(asked | {"stream": True, "ignore_eos": True, "return_token_ids": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
    return connection


def read_all(selector: selectors.BaseSelector) -> list[bytearray]:
    """Read registered connections to their end, each into its data."""
    found = [key.data for key in selector.get_map().values()]
    while selector.get_map():
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            if part := key.fileobj.recv(2**16):
                key.data.extend(part)
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()
    return found


def tokens_of(data: bytearray) -> list[int]:
    """Return the tokens that a stream has brought, if it has come to its end."""
    assert b"data: [DONE]" in data, bytes(data[-300:])
    chunks = [json.loads(each) for each in re.findall(rb"data: (\{.*\})", data)]
    return [
        token for chunk in chunks for choice in chunk["choices"] for token in choice.get("token_ids", ())
    ]


def beside(follow: Follow, submit: Submit, n: int, given: list[list[int]], max_tokens: int) -> float:
    """Return the seconds that streams and a batch take together."""
    start = time.perf_counter()
    with ThreadPoolExecutor(1) as thread:
        streams = thread.submit(follow, n)
        seconds_of(submit, given, max_tokens)
        assert {len(tokens) for tokens in streams.result()} == {STREAMED}
    return time.perf_counter() - start


def crowd(url: str, model: Path, n: int, pid: int) -> None:
    """Have as many connections open at a time; print what became of them."""
    before, start = resident_mb(pid), time.perf_counter()
    address = urlsplit(url)
    idle = [socket.create_connection((address.hostname, address.port)) for _ in range(n // 3)]
    slow = [open_stream(url, model, seed) for seed in range(n // 3)]
    read: list[bytearray] = [bytearray() for _ in slow]
    with ThreadPoolExecutor(1) as thread:
        fast = thread.submit(follow_there(url, model), n - len(idle) - len(slow))
        open_ = dict(zip(slow, read, strict=True))
        while open_:
            time.sleep(0.1)
            for connection, data in list(open_.items()):
                part = connection.recv(SLOW)
                data.extend(part)
                if not part:
                    del open_[connection]
        n_fast = [len(tokens) for tokens in fast.result()]
    n_slow = [len(tokens_of(data)) for data in read]
    assert {*n_fast, *n_slow} == {STREAMED}
    for connection in idle:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    took = time.perf_counter() - start
    print(
        f"{n} connections ({len(idle)} idle, {len(n_fast)} streaming, {len(n_slow)} slow): {took:.1f} s, "
        f"nothing lost; {before:.0f} MB before, {resident_mb(pid):.0f} MB after"
    )


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


class Meter:
    """Adds up the CPU time of a process while work is done."""

    def __init__(self, pid: int) -> None:
        self._pid, self.used = pid, 0.0

    def __call__(self, work: Callable[[], float]) -> float:
        before = cpu_seconds(self._pid)
        seconds = work()
        self.used += cpu_seconds(self._pid) - before
        return seconds


def compare(
    what: str, n_tokens: int, pid: int, rounds: int, there: Callable[[], float], here: Callable[[], float]
) -> None:
    server, own = Meter(pid), Meter(os.getpid())
    pairs = alternate(lambda: server(there), lambda: own(here), rounds)
    print(f"{what}, tokens per second:")
    print(f"  server {n_tokens / pairs.ours:8.1f}   here {n_tokens / pairs.other:8.1f}")
    print(f"  ratio {pairs.ratio:.3f} (median of rounds), {pairs.fastest:.3f} (fastest)")
    print(
        f"  CPU time: here {own.used:.2f} s, server {server.used:.2f} s; ratio {own.used / server.used:.3f}"
    )
    sys.stdout.flush()


def compare_small_ones(there: Submit, here: Submit, rounds: int) -> None:
    waits: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for found, submit in zip(waits, (there, here), strict=True):
            found += small_ones(submit)
    for name, found in zip(("SDK", "here"), waits, strict=True):
        p50, p99 = np.percentile(found, [50, 99]) * 1e3
        print(f"one small request, {name:4}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def main() -> None:
    parser: argparse.ArgumentParser = command_line(__doc__)
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--only-streams", action="store_true", help="leave out what has no streams")
    parser.add_argument("--flood", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=600)
    arguments = parser.parse_args()
    n, max_tokens, rounds = arguments.streams, arguments.max_tokens, arguments.rounds
    warnings.simplefilter("ignore", FutureWarning)
    model, given = default_model(arguments.type), prompts(arguments.requests)
    with serving(model) as (url, pid):
        client = client_here(model)
        here, there = submit_here(client), submit_there(url, model)
        first = [submit([1000], 8, 1).result().sequences[0].tokens for submit in (here, there)]
        assert first[0] == first[1], first
        if given and not arguments.only_streams:
            compare(
                f"{len(given)} requests of {max_tokens} tokens",
                len(given) * max_tokens,
                pid,
                rounds,
                lambda: seconds_of(there, given, max_tokens),
                lambda: seconds_of(here, given, max_tokens),
            )
            compare_small_ones(there, here, rounds)
        if n:
            followed, batch = follow_there(url, model), given[: len(given) // 2]
            compare(
                f"{n} streams of {STREAMED} tokens beside {len(batch)} requests of {max_tokens}",
                n * STREAMED + len(batch) * max_tokens,
                pid,
                rounds,
                lambda: beside(followed, there, n, batch, max_tokens),
                lambda: beside(follow_here(client), here, n, batch, max_tokens),
            )
        if arguments.flood and not arguments.only_streams:
            flood(there, arguments.flood, pid)
        if arguments.connections:
            crowd(url, model, arguments.connections, pid)


if __name__ == "__main__":
    main()
