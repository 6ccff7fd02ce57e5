"""Many queued requests: their memory, the time to submit them, the time to cancel them.

    python -m tests.benchmarks.queue [--requests N] [--prompt-length N] [--finish N]

One long request keeps the engine busy, in a context without room for a second, so that all others wait.
Memory per request is measured twice: growth of the resident set, and bytes requested from Python's
allocator; the lines of code that allocated most are listed. Prompts do not count, they are made before.

At the end ``--finish`` requests are queued and left to finish, to see that results arrive as they are
ready.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tests.benchmarks.memory import resident
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient, track
from tinker_local.store.model_store import ModelStore

N_CTX = 1024
N_TRACED = 10_000  # tracing makes everything slow
PARAMS = SamplingParams(max_tokens=8, stop=[])

Submit = Callable[[ModelInput], Future[Any]]


def prompts(count: int, length: int) -> list[ModelInput]:
    return [ModelInput.from_ints([1000 + (n + i) % 5000 for i in range(length)]) for n in range(count)]


def keep_busy(client: SamplingClient, length: int) -> Future[Any]:
    """Fill the context with one request, so that all later ones wait."""
    [prompt] = prompts(1, length)
    return client.sample(prompt, 1, SamplingParams(max_tokens=N_CTX - length, stop=[]))


def drop(futures: list[Future[Any]]) -> float:
    """Cancel all futures; return the seconds it took."""
    start = time.perf_counter()
    for future in reversed(futures):
        future.cancel()
    return time.perf_counter() - start


def measure(name: str, client: SamplingClient, submit: Submit, given: list[ModelInput]) -> None:
    hog = keep_busy(client, given[0].length)
    gc.collect()
    before, start = resident(), time.perf_counter()
    futures = [submit(prompt) for prompt in given]
    submitting = time.perf_counter() - start
    grown = resident() - before
    waited = not any(future.done() for future in futures)
    cancelling = drop([hog, *futures])
    start = time.perf_counter()
    client.sample(given[0], 1, PARAMS).result()
    n = len(given)
    print(
        f"{name:18} {grown / n:8.0f} bytes  {n / submitting:8.0f} submitted/s"
        f"  {cancelling:6.2f} s to cancel  {time.perf_counter() - start:6.2f} s to the next result"
        f"{'' if waited else '  (some did not wait)'}",
        flush=True,
    )


def list_owners(name: str, client: SamplingClient, submit: Submit, given: list[ModelInput]) -> None:
    hog = keep_busy(client, given[0].length)
    gc.collect()
    tracemalloc.start()
    futures = [submit(prompt) for prompt in given]
    time.sleep(0.5)  # the engine takes them over
    owners = tracemalloc.take_snapshot().statistics("lineno")
    tracemalloc.stop()
    drop([hog, *futures])
    print(
        f"\n{name}: {sum(owner.size for owner in owners) / len(given):.0f} bytes asked of Python, of these"
    )
    for owner in owners[:14]:
        frame = owner.traceback[0]
        place = "/".join(Path(frame.filename).parts[-2:]) + f":{frame.lineno}"
        print(f"  {owner.size / len(given):7.0f}  {owner.count / len(given):5.1f} blocks  {place}")


def finish(client: SamplingClient, submit: Submit, given: list[ModelInput]) -> None:
    start = time.perf_counter()
    times = [time.perf_counter() - start for _ in track([submit(prompt) for prompt in given])]
    print(
        f"\n{len(given)} left to finish: first {times[0]:.2f} s, half {times[len(times) // 2]:.2f} s, ",
        end="",
    )
    print(f"all {times[-1]:.2f} s")


SUBMIT: dict[str, Callable[[SamplingClient], Submit]] = {
    "sample": lambda client: lambda prompt: client.sample(prompt, 1, PARAMS),
    "compute_logprobs": lambda client: client.compute_logprobs,
}


def run(kind: str, model: str, n_requests: int, length: int, n_finish: int) -> None:
    client = ServiceClient(n_ctx=N_CTX).create_sampling_client(base_model=model)
    submit, given = SUBMIT[kind](client), prompts(n_requests, length)
    print(f"\n{n_requests} requests of {length} tokens, for each")
    measure(kind, client, submit, given)
    list_owners(kind, client, submit, given[:N_TRACED])
    finish(client, submit, given[:n_finish])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default=ModelStore.default_name)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--prompt-length", type=int, default=50)
    parser.add_argument("--finish", type=int, default=100)
    given = parser.parse_args()
    for kind in SUBMIT:  # each in a process of its own: memory freed by one would serve the other
        arguments = (kind, given.model, given.requests, given.prompt_length, given.finish)
        process = multiprocessing.get_context("spawn").Process(target=run, args=arguments)
        process.start()
        process.join()


if __name__ == "__main__":
    main()
