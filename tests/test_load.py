"""Many requests at once, from threads and from an event loop, half of them cancelled midway."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.long import few
from tinker_local import (
    APIFuture,
    ModelInput,
    SampleResponse,
    SamplingClient,
    SamplingParams,
    ServiceClient,
    Tokenizer,
)

# How far Q4_1 log-probabilities move with the company they keep (DESIGN.md, Numerics: 0.07 to 0.09 on
# average between decoding and scoring, several times that at most).
MEAN_GAP, LARGEST_GAP = 0.12, 1.5

N_THREADS = 8


@dataclass(frozen=True)
class Size:
    """How many requests, half of them from threads, and how long they are."""

    n_jobs: int
    longest_prompt: int
    longest_answer: int
    longest_wait: float
    """Seconds until some are cancelled."""
    n_ctx: int
    """Cells of a cache that cannot hold all the requests at once."""


SIZES = {"small": Size(16, 24, 6, 0.15, 256), "full": Size(40, 60, 12, 0.6, 512)}


class Job:
    """One request; scoring if ``n_samples`` is 0."""

    def __init__(self, number: int, tokens: list[int], size: Size) -> None:
        rng = random.Random(number)
        self.patience = random.random() * size.longest_wait
        start = rng.randrange(len(tokens) - 200)
        self.prompt = ModelInput.from_ints(tokens[start : start + rng.randint(8, size.longest_prompt)])
        self.n_samples = rng.choice([0, 0, 1, 3])
        self.params = SamplingParams(max_tokens=rng.randint(4, size.longest_answer), seed=number, stop=[])
        self.cancels = number % 2 == 1
        self.scores: list[float | None] | None = None
        self.response: SampleResponse | None = None
        self.was_cancelled = False

    def submit(self, client: SamplingClient) -> APIFuture[object]:
        if self.n_samples == 0:
            return client.compute_logprobs(self.prompt)  # type: ignore[return-value]
        return client.sample(self.prompt, self.n_samples, self.params)  # type: ignore[return-value]

    def take(self, result: object) -> None:
        if isinstance(result, SampleResponse):
            self.response = result
        else:
            self.scores = result  # type: ignore[assignment]

    async def run_async(self, client: SamplingClient) -> None:
        task = asyncio.ensure_future(self.submit(client).coroutine())
        if self.cancels:
            await asyncio.sleep(self.patience)
            task.cancel()
        try:
            self.take(await task)
        except asyncio.CancelledError:
            self.was_cancelled = True


def run_in_thread(client: SamplingClient, jobs: list[Job]) -> None:
    futures = [(job, job.submit(client)) for job in jobs]
    time.sleep(jobs[0].patience)
    for job, future in futures:
        if job.cancels:
            future.cancel()
    for job, future in futures:
        try:
            job.take(future.result(timeout=300))
        except CancelledError:
            job.was_cancelled = True


@pytest.fixture
def busy_client(model_path: Path, size: str) -> SamplingClient:
    return ServiceClient(n_ctx=SIZES[size].n_ctx).create_sampling_client(base_model=str(model_path))


@pytest.fixture
def idle_client(model_path: Path) -> SamplingClient:
    """Another context, which cannot answer from the cache of the busy one."""
    return ServiceClient(n_ctx=2048).create_sampling_client(base_model=str(model_path))


@pytest.mark.parametrize("size", few(1, SIZES))
def test_many_requests_at_once(
    busy_client: SamplingClient,
    idle_client: SamplingClient,
    tokenizer: Tokenizer,
    english: str,
    size: str,
) -> None:
    finished = run_jobs(busy_client, tokenizer.encode(english), SIZES[size])
    check_answers(finished)
    check_scores(finished, idle_client)
    check_sampled_logprobs(finished, idle_client)
    check_nothing_is_left_behind(busy_client)


def run_jobs(busy_client: SamplingClient, tokens: list[int], size: Size) -> list[Job]:
    """Submit jobs from threads and from an event loop, and cancel some of them."""
    jobs = [Job(number, tokens, size) for number in range(size.n_jobs)]
    half = size.n_jobs // 2
    parts = np.array_split(np.arange(half), N_THREADS)
    threads = [
        threading.Thread(target=run_in_thread, args=(busy_client, [jobs[i] for i in part]))
        for part in parts
    ]

    async def run_all() -> None:
        await asyncio.gather(*(job.run_async(busy_client) for job in jobs[half:]))

    for thread in threads:
        thread.start()
    asyncio.run(run_all())
    for thread in threads:
        thread.join()
    return jobs


def check_answers(finished: list[Job]) -> None:
    """Every request that was not cancelled has its answer."""
    for job in finished:
        if not job.cancels:
            assert not job.was_cancelled
        if job.was_cancelled:
            continue
        if job.n_samples == 0:
            assert job.scores is not None
            assert len(job.scores) == job.prompt.length
        else:
            assert job.response is not None
            lengths = [len(s.tokens) for s in job.response.sequences]
            assert lengths == [job.params.max_tokens] * job.n_samples
    assert sum(job.was_cancelled for job in finished) > len(finished) / 8, (
        "cancelled too late to test anything"
    )


def check_scores(finished: list[Job], idle_client: SamplingClient) -> None:
    """Scores are those of an idle engine."""
    gaps = []
    for job in finished:
        if job.scores is not None:
            idle = idle_client.compute_logprobs(job.prompt).result()
            gaps.append(np.abs(np.array(idle[1:]) - np.array(job.scores[1:])))
    gap = np.concatenate(gaps)
    assert gap.mean() < MEAN_GAP
    assert gap.max() < LARGEST_GAP


def check_sampled_logprobs(finished: list[Job], idle_client: SamplingClient) -> None:
    """Log-probabilities of sampled tokens agree with a later scoring of them."""
    gaps = []
    for job in finished:
        for sequence in job.response.sequences if job.response else []:
            whole = ModelInput.from_ints(job.prompt.to_ints() + sequence.tokens)
            scores = idle_client.compute_logprobs(whole).result()[job.prompt.length :]
            gaps.append(np.abs(np.array(scores) - np.array(sequence.logprobs)))
    gap = np.concatenate(gaps)
    assert gap.mean() < MEAN_GAP
    assert gap.max() < LARGEST_GAP


def check_nothing_is_left_behind(busy_client: SamplingClient) -> None:
    """A request that needs the whole context still runs."""
    n_ctx = busy_client.n_ctx
    prompt = ModelInput.from_ints([100] * (n_ctx - 10))
    params = SamplingParams(max_tokens=10, stop=[], temperature=0)
    assert len(busy_client.sample(prompt, 1, params).result().sequences[0].tokens) == 10
