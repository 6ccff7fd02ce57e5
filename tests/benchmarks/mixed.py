"""A thousand mixed requests at once: do all finish, does memory stay flat, are greedy results right?

    python -m tests.benchmarks.mixed [--type q4_1] [--requests N] [--no-prefix-cache]

Prompts have 10 to 2,000 tokens, mostly few, with 1 to 16 samples and 1 to 64 new tokens, from a fixed seed.
A quarter is greedy, a quarter only scored, the rest has random temperature, top_k and top_p. All are
submitted at once to one client with ``n_ctx=4096``.

Then each greedy request runs again, alone, with one sample, on an engine that caches nothing. llama.cpp
rounds differently with other requests in the batch, so nearly tied tokens may change places, and the two
continuations part. The gap of a parting is how far, in nats, the less probable of the two tokens lies below
the most probable token there.

Resident memory is read from ``/proc`` as requests finish. A thousand requests take 10 to 15 minutes on two
cores, more on a busy machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.memory import resident
from tests.benchmarks.requantized import command_line, default_model
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient

ROOT = Path(__file__).parents[2]
N_CTX = 4096
MARKS = (0.1, 0.25, 0.5, 0.75, 1.0)
NEAR_TIE = 1.5
"""Nats; what one token alone and many together differ by in llama.cpp, for 4-bit files."""


@dataclass(frozen=True)
class Job:
    prompt: list[int]
    num_samples: int
    params: SamplingParams
    topk: int | None  # None: not scored

    @property
    def is_greedy(self) -> bool:
        return self.params.max_tokens != 0 and self.params.temperature == 0

    @property
    def n_most(self) -> int:
        return self.num_samples * (self.params.max_tokens or 0)


def make_jobs(n: int, text: list[int], rng: np.random.Generator) -> list[Job]:
    return [make_job(number, text, rng) for number in range(n)]


def make_job(number: int, text: list[int], rng: np.random.Generator) -> Job:
    length = round(10 * 200 ** rng.random() ** 4)
    start = int(rng.integers(0, len(text))) if rng.random() < 0.7 else 0  # those at 0 share prefixes
    prompt = (text[start:] + text)[:length]
    num_samples = round(16 ** rng.random() ** 2)
    max_tokens = round(64 ** rng.random())
    stop: list[int] | None = [] if rng.random() < 0.5 else None
    if number % 4 == 0:
        params = SamplingParams(max_tokens=max_tokens, temperature=0, stop=stop)
        return Job(prompt, num_samples, params, None)
    if number % 4 == 1:
        return Job(prompt, 1, SamplingParams(max_tokens=0), int(rng.integers(0, 21)))
    params = SamplingParams(
        max_tokens=max_tokens,
        seed=number,
        stop=stop,
        temperature=float(rng.uniform(0.3, 1.5)),
        top_k=int(rng.choice([-1, 1, 20, 50])),
        top_p=float(rng.choice([0.5, 0.95, 1.0])),
    )
    return Job(prompt, num_samples, params, 5 if rng.random() < 0.2 else None)


def submit(client: SamplingClient, job: Job) -> Future[Any]:
    prompt = ModelInput.from_ints(job.prompt)
    return client.sample(
        prompt, job.num_samples, job.params, job.topk is not None, topk_prompt_logprobs=job.topk or 0
    )


def resident_mib() -> float:
    return resident() / 2**20


@dataclass
class Ledger:
    """Counts of the responses; the responses themselves are dropped, since they would count as memory."""

    n_jobs: int
    n_done: int = 0
    n_new: int = 0
    n_cached: int = 0
    errors: list[Exception] = field(default_factory=list)
    greedy: dict[int, list[list[int]]] = field(default_factory=dict)
    memory: list[tuple[int, float, float]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    all_done: threading.Event = field(default_factory=threading.Event)

    def receiver(self, number: int, job: Job) -> Callable[[Future[Any]], None]:
        return lambda future: self.receive(number, job, future)

    def receive(self, number: int, job: Job, future: Future[Any]) -> None:
        with self.lock:
            try:
                self.take(number, job, future.result())
            except Exception as error:
                self.errors.append(error)
            self.n_done += 1
            if self.n_done in {max(1, round(mark * self.n_jobs)) for mark in MARKS}:
                self.memory.append((self.n_done, time.perf_counter() - self.started, resident_mib()))
            if self.n_done == self.n_jobs:
                self.all_done.set()

    def take(self, number: int, job: Job, response: Any) -> None:
        sequences = response.sequences
        assert len(sequences) == (job.num_samples if job.params.max_tokens else 1), len(sequences)
        if job.topk is not None:
            assert len(response.prompt_logprobs_np) == len(job.prompt)
            assert np.isfinite(response.prompt_logprobs_np[1:]).all()
        self.n_new += sum(len(sequence.tokens_np) for sequence in sequences)
        self.n_cached += response.prompt_cache_hit_tokens
        if job.is_greedy:
            self.greedy[number] = [sequence.tokens_np.tolist() for sequence in sequences]


def run_together(client: SamplingClient, jobs: list[Job]) -> Ledger:
    ledger = Ledger(len(jobs))
    for number, job in enumerate(jobs):
        submit(client, job).add_done_callback(ledger.receiver(number, job))
    ledger.all_done.wait()
    return ledger


@dataclass(frozen=True)
class Parting:
    """The place where a greedy continuation parts from the one computed alone."""

    gap: float
    n_tokens: int


def first_parting(client: SamplingClient, job: Job, together: list[list[int]]) -> Parting | None:
    """Return the first parting from the continuation computed alone; None if all samples equal it."""
    response = submit(client, Job(job.prompt, 1, job.params, None)).result()
    alone: list[int] = response.sequences[0].tokens
    for tokens in together:
        if tokens != alone:
            pairs = zip(tokens, alone, strict=False)
            where = next((i for i, (one, other) in enumerate(pairs) if one != other), None)
            if where is None:  # one just ends, which no near-tie explains
                return Parting(float("inf"), min(len(tokens), len(alone)))
            context = job.prompt + alone[:where]
            return Parting(gap_between(client, context, tokens[where], alone[where]), where)
    return None


def gap_between(client: SamplingClient, context: list[int], one: int, other: int) -> float:
    prompt = ModelInput.from_ints([*context, other])
    params = SamplingParams(max_tokens=0)
    response = client.sample(prompt, 1, params, topk_prompt_logprobs=100).result()
    assert response.topk_prompt_logprobs is not None
    top = dict(response.topk_prompt_logprobs[-1] or [])
    lowest = min(top.get(token, float("-inf")) for token in (one, other))
    return max(top.values()) - lowest


def print_partings(partings: list[Parting | None]) -> None:
    gaps = sorted(parting.gap for parting in partings if parting is not None)
    near = sum(gap <= NEAR_TIE for gap in gaps)
    print(f"greedy requests, again alone: {len(partings)}")
    print(f"  equal                                  {len(partings) - len(gaps):5d}")
    print(f"  parted at a near-tie (<= {NEAR_TIE} nats)      {near:5d}")
    print(f"  unequal otherwise                      {len(gaps) - near:5d}")
    if gaps:
        quantiles = np.quantile(gaps, (0, 0.25, 0.5, 0.75, 0.9, 1), method="nearest")
        print("  gaps, nats: least, quartiles, 90 %, most ", " ".join(f"{q:.3f}" for q in quantiles))


def measure(path: Path, n_requests: int, *, prefix_cache: bool) -> None:
    service = ServiceClient(n_ctx=N_CTX, prefix_cache=prefix_cache)
    client = service.create_sampling_client(base_model=str(path))
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("LICENSE", "README.md"))
    jobs = make_jobs(n_requests, client.get_tokenizer().encode(text), np.random.default_rng(0))
    n_prompt, n_most = sum(len(job.prompt) for job in jobs), sum(job.n_most for job in jobs)
    print(f"{path.name}: {len(jobs)} requests, {n_prompt} prompt tokens, at most {n_most} new ones")
    print(f"memory before the first: {resident_mib():.0f} MiB", flush=True)
    ledger = run_together(client, jobs)
    seconds = time.perf_counter() - ledger.started
    print(f"finished {ledger.n_done - len(ledger.errors)}, failed {len(ledger.errors)}, in {seconds:.0f} s")
    print(f"new tokens {ledger.n_new}, prompt tokens not computed again {ledger.n_cached}")
    for n_done, when, mib in ledger.memory:
        print(f"  after {n_done:5d} requests, {when:6.0f} s: {mib:7.0f} MiB")
    for error in ledger.errors[:5]:
        print(f"  failed: {error!r}")
    service.close()
    alone_service = ServiceClient(n_ctx=N_CTX, prefix_cache=False)
    alone = alone_service.create_sampling_client(base_model=str(path))
    found = sorted(ledger.greedy.items())
    print_partings([first_parting(alone, jobs[number], together) for number, together in found])


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--no-prefix-cache", action="store_true")
    arguments = parser.parse_args()
    path = default_model(arguments.type)
    measure(path, arguments.requests, prefix_cache=not arguments.no_prefix_cache)


if __name__ == "__main__":
    main()
