"""A soak: random requests, cancellations, adapter switches and bad inputs from many threads at once.

    python -m tests.soak [--minutes M] [--seed S] [--threads T]

Nothing may get lost: every future ends, those not cancelled with an answer. Nothing may be wrong: each
answer is compared with a recomputation, by engines that do nothing else and cache nothing. With
``batch_invariant`` it has to have the same bits; otherwise the sampled tokens are scored again, and float32
rounding is allowed. Memory has to be flat. The models are tiny and random, of several kinds of memory.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local import (
    BadRequestError,
    ModelInput,
    NotFoundError,
    SampleResponse,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)

TOLERANCE = 2e-3  # nats; float32 sums of other lengths
SECONDS = 600.0  # in which any request must end, on a machine with other work too
GROWTH = 48e6  # bytes between the first third and the end
N_CTX = 384
MODES: dict[str, dict[str, Any]] = {
    "invariant": {"batch_invariant": True, "n_ctx": N_CTX, "n_threads": 1, "n_contexts": 2},
    "usual": {"kv_type": "f32", "flash_attn": False, "n_ctx": N_CTX, "n_threads": 1, "n_contexts": 2},
}


@dataclass(frozen=True)
class Source:
    """What a client is opened on; ``mode`` is a key of ``MODES``."""

    mode: str
    model: Path
    adapter: Path | None = None
    scale: float = 1.0

    def open(self, services: dict[str, ServiceClient]) -> SamplingClient:
        adapter = None if self.adapter is None else str(self.adapter)
        return services[self.mode].create_sampling_client(adapter, str(self.model), lora_scale=self.scale)


@dataclass
class Tally:
    """What happened; ``problems`` are what must not."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)  # seconds, bytes

    @property
    def growth(self) -> int:
        """Bytes that the process grew by from the first third of the time to the last."""
        if len(self.memory) < 6:
            return 0
        third = len(self.memory) // 3
        sizes = [size for _, size in self.memory]
        return int(np.median(sizes[-third:]) - np.median(sizes[third : 2 * third]))

    def lines(self) -> list[str]:
        return [
            *(f"{count:9,}  {name}" for name, count in self.counts.most_common()),
            f"{self.memory[-1][1] / 1e6:9,.1f}  MB at the end, {self.growth / 1e6:+.1f} MB grown",
            *self.problems[:20],
        ]


class Judge:
    """Recomputes answers, one at a time, in engines of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._services = {
            mode: ServiceClient(**{**options, "prefix_cache": False, "n_contexts": 16})
            for mode, options in MODES.items()
        }
        self._clients: dict[Source, SamplingClient] = {}

    def _client(self, source: Source) -> SamplingClient:
        if source not in self._clients:
            self._clients[source] = source.open(self._services)
        return self._clients[source]

    def answer(self, source: Source, job: Job) -> SampleResponse:
        with self._lock:
            found: SampleResponse = job.submit(self._client(source)).result(SECONDS)
            return found

    def scores(self, source: Source, tokens: list[int]) -> np.ndarray:
        with self._lock:
            found = self._client(source).compute_logprobs(ModelInput.from_ints(tokens)).result(SECONDS)
        return np.array([np.nan, *found[1:]], float)


class Job:
    """A random request."""

    def __init__(self, rng: random.Random) -> None:
        if rng.random() < 0.5:  # conversations that share a beginning
            start = random.Random(rng.randrange(8))
            self.tokens = [start.randrange(256) for _ in range(start.randint(1, 150))]
        else:
            self.tokens = []
        self.tokens += [rng.randrange(256) for _ in range(rng.randint(1, 100))]
        self.n_samples = rng.choice((1, 1, 1, 2, 5))
        self.params = SamplingParams(
            max_tokens=rng.choice((0, 1, 8, 30, 100)),
            seed=rng.randrange(2**32),
            temperature=rng.choice((1.0, 1.0, 0.7, 0.0)),
            top_k=rng.choice((-1, -1, 5)),
            top_p=rng.choice((1.0, 1.0, 0.9)),
            stop=rng.choice(([], None, [17, 18])),
        )
        self.topk = rng.choice((0, 0, 3))

    @property
    def is_plain(self) -> bool:
        """Whether tokens are drawn from the model's own distribution, so that scoring tells theirs."""
        plain = (self.params.top_k, self.params.top_p) == (-1, 1.0)
        return self.params.temperature == 0 or (plain and self.params.temperature == 1)

    def submit(self, client: SamplingClient) -> Any:
        prompt = ModelInput.from_ints(self.tokens)
        return client.sample(prompt, self.n_samples, self.params, True, self.topk)


class Soak:
    """Threads that ask for things, and check what they get.

    Args:
        directory: for the models.
        seed: of what is asked; in which order it happens is up to the threads.
        n_threads: how many ask at once.
    """

    def __init__(self, directory: Path, seed: int, n_threads: int) -> None:
        self._seed, self._n_threads = seed, n_threads
        self._sources = _sources(directory)
        self._broken = _broken_files(directory, self._sources[0].model)
        self._services = {mode: ServiceClient(**options) for mode, options in MODES.items()}
        self._judge = Judge()
        self._lock = threading.Lock()
        self._tally = Tally()

    def run(self, seconds: float) -> Tally:
        """Go on for so long, and return what happened."""
        for source in self._sources:  # so that all is in memory that stays there
            self._check(
                source, job := Job(random.Random(0)), job.submit(source.open(self._services)).result()
            )
        begin = time.monotonic()
        threads = [
            threading.Thread(target=self._work, args=(number, begin + seconds), daemon=True)
            for number in range(self._n_threads)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            gc.collect()
            self._tally.memory.append((time.monotonic() - begin, _resident()))
            time.sleep(min(5.0, seconds / 30))
            if time.monotonic() - begin > seconds + 3 * SECONDS:
                self._note("lost", "a thread did not end")
                break
        self._check_integrity()
        if self._tally.growth > GROWTH:
            self._note("grown", f"memory grew by {self._tally.growth / 1e6:.1f} MB")
        for service in self._services.values():
            service.close()
        return self._tally

    def _check_integrity(self) -> None:
        """Check the accounts of every engine, now that nobody asks for anything."""
        for source in self._sources:
            scheduler = source.open(self._services)._engine._loop._scheduler
            end = time.monotonic() + SECONDS
            while scheduler.has_work and time.monotonic() < end:
                time.sleep(0.1)
            time.sleep(0.1)  # the last step may still be ending
            try:
                scheduler.check_integrity()
            except AssertionError as error:
                self._note("inconsistent", f"{source}: {error}")

    def _work(self, number: int, end: float) -> None:
        rng = random.Random(f"{self._seed}:{number}")
        client, source = self._switch(rng)
        actions: list[tuple[Callable[..., None], int]] = [
            (self._sample, 8),
            (self._score, 4),
            (self._cancel, 4),
            (self._bad_request, 3),
            (self._bad_file, 1),
        ]
        choices = [action for action, weight in actions for _ in range(weight)]
        while time.monotonic() < end and len(self._tally.problems) < 20:
            if rng.random() < 0.2:
                client, source = self._switch(rng)
            action = rng.choice(choices)
            try:
                action(rng, client, source)
            except Exception as error:
                self._note("error", f"{action.__name__}, {source}: {error!r}")
                if isinstance(error, TimeoutError):
                    faulthandler.dump_traceback()

    def _switch(self, rng: random.Random) -> tuple[SamplingClient, Source]:
        source = rng.choice(self._sources)
        self._count("clients")
        return source.open(self._services), source

    def _sample(self, rng: random.Random, client: SamplingClient, source: Source) -> None:
        jobs = [Job(rng) for _ in range(rng.choice((1, 1, 4)))]
        futures = [job.submit(client) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            self._check(source, job, future.result(SECONDS))

    def _score(self, rng: random.Random, client: SamplingClient, source: Source) -> None:
        tokens = Job(rng).tokens
        found = client.compute_logprobs(ModelInput.from_ints(tokens)).result(SECONDS)
        self._compare(source, "scores", np.array(found[1:], float), self._judge.scores(source, tokens)[1:])
        self._count("scored")

    def _cancel(self, rng: random.Random, client: SamplingClient, source: Source) -> None:
        jobs = [Job(rng) for _ in range(6)]
        futures = [job.submit(client) for job in jobs]
        time.sleep(rng.random() * 0.05)
        for future in futures[::2]:
            future.cancel()
        for job, future in zip(jobs, futures, strict=True):
            try:
                self._check(source, job, future.result(SECONDS))
            except CancelledError:
                self._count("cancelled")

    def _bad_request(self, rng: random.Random, client: SamplingClient, _source: Source) -> None:
        prompt, params = ModelInput.from_ints([1, 2]), SamplingParams(max_tokens=2)
        call = rng.choice(
            (
                lambda: client.sample(ModelInput.from_ints([]), 1, params),
                lambda: client.sample(ModelInput.from_ints([10**9]), 1, params),
                lambda: client.sample(ModelInput.from_ints([1] * (N_CTX + 1)), 1, params),
                lambda: client.sample(prompt, rng.choice((0, -1, 10**9, "x")), params),  # type: ignore[arg-type]
                lambda: client.sample(prompt, 1, SamplingParams(temperature=-1)),
                lambda: client.sample(prompt, 1, SamplingParams(temperature=10**400)),
                lambda: client.sample(prompt, 1, SamplingParams(max_tokens=N_CTX)),
                lambda: client.sample(prompt, 1, params, topk_prompt_logprobs=10**6),
                lambda: client.compute_logprobs("text"),  # type: ignore[arg-type]
            )
        )
        self._refused(call, "bad requests")

    def _bad_file(self, rng: random.Random, _client: SamplingClient, source: Source) -> None:
        path, service = rng.choice(self._broken), self._services[source.mode]
        if rng.random() < 0.5:
            self._refused(lambda: service.create_sampling_client(base_model=str(path)), "bad models")
        else:
            base = str(self._sources[0].model)
            self._refused(lambda: service.create_sampling_client(str(path), base), "bad adapters")

    def _refused(self, call: Callable[[], Any], name: str) -> None:
        try:
            call()
        except (BadRequestError, NotFoundError):
            self._count(name)
        else:
            self._note("wrong", f"one of the {name} was taken")

    def _check(self, source: Source, job: Job, found: SampleResponse) -> None:
        if source.mode == "invariant":
            if _parts(found) != _parts(self._judge.answer(source, job)):
                self._note("wrong", f"other bits: {source}, {job.tokens}, {job.n_samples}, {job.params}")
        elif job.is_plain:
            self._check_by_score(source, job, found)
        scores = self._judge.scores(source, job.tokens)[1:]
        self._compare(source, "prompt", np.array((found.prompt_logprobs or [])[1:], float), scores)
        self._count("sampled")

    def _check_by_score(self, source: Source, job: Job, found: SampleResponse) -> None:
        for sequence in found.sequences:
            if sequence.tokens:
                scores = self._judge.scores(source, job.tokens + sequence.tokens)[len(job.tokens) :]
                self._compare(source, "samples", np.array(sequence.logprobs, float), scores)

    def _compare(self, source: Source, what: str, found: np.ndarray, expected: np.ndarray) -> None:
        allowed = 0 if source.mode == "invariant" else TOLERANCE
        if found.shape != expected.shape:
            self._note("wrong", f"{what} of {source} are {found.shape}, not {expected.shape}")
        elif (gap := np.abs(found - expected).max(initial=0)) > allowed:
            self._note("wrong", f"{what} of {source} differ by {gap}")

    def _count(self, name: str) -> None:
        with self._lock:
            self._tally.counts[name] += 1

    def _note(self, name: str, problem: str) -> None:
        with self._lock:
            self._tally.counts[name] += 1
            self._tally.problems.append(problem)


def _parts(found: SampleResponse) -> tuple[Any, ...]:
    sequences = [(s.tokens, s.logprobs, s.stop_reason) for s in found.sequences]
    return sequences, found.prompt_logprobs, found.topk_prompt_logprobs


def _sources(directory: Path) -> list[Source]:
    model = write_random_model(directory / "llama.gguf")
    window = write_random_model(directory / "gemma3.gguf", "gemma3")
    hybrid = write_random_model(directory / "jamba.gguf", "jamba")
    one = random_adapter(model, seed=1).write(directory / "one.gguf")
    two = random_adapter(model, seed=2).write(directory / "two.gguf")
    plain = [Source(mode, path) for mode in MODES for path in (model, window)]
    adapted = [
        Source(mode, model, path, scale) for mode in MODES for path, scale in ((one, 1.0), (two, 0.5))
    ]
    return [*plain, *adapted, Source("usual", hybrid)]


def _broken_files(directory: Path, model: Path) -> list[Path]:
    data = model.read_bytes()
    broken = {
        "cut": data[: len(data) // 2],
        "none": b"",
        "text": b"not a model",
        "head": data[:40] + b"\xff" * 8 + data[48:],
    }
    paths = [directory / f"{name}.gguf" for name in broken]
    for path, content in zip(paths, broken.values(), strict=True):
        path.write_bytes(content)
    return [*paths, directory / "missing.gguf"]


def _resident() -> int:
    """Bytes of memory that the process holds, without what is mapped from files."""
    with open("/proc/self/status", encoding="ascii") as file:
        anonymous = next(line for line in file if line.startswith("RssAnon"))
    return int(anonymous.split()[1]) * 1024


def soak(seconds: float, seed: int = 0, n_threads: int = 16) -> Tally:
    """Soak for so long, in a directory of its own."""
    with tempfile.TemporaryDirectory() as name:
        return Soak(Path(name), seed, n_threads).run(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=16)
    given = parser.parse_args()
    tally = soak(given.minutes * 60, given.seed, given.threads)
    print("\n".join(tally.lines()))
    sys.exit(bool(tally.problems))


if __name__ == "__main__":
    main()
