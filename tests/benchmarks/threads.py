"""One thread against more: our engine, on models from tiny to an 8B model's layers.

    python -m tests.benchmarks.threads [--threads N] [--busy N] [--models tiny,small,...] [--rounds N]

Two clients on one file take turns, with one thread and with ``--threads`` (default 2). ``--busy`` programs
compute beside them, as on a shared machine. Prints milliseconds a step, or a scored token, for both, and
the median ratio of neighbouring runs: above 1 more threads are faster.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.benchmarks.requantized import CACHE, default_model, random_model
from tests.benchmarks.timing import alternate
from tests.random_model import Quantization, Shape, write_random_model
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient

N_PROMPT = 32
SECONDS = 0.4  # of a run, about


def small_model(name: str, shape: Shape) -> Path:
    path = CACHE / f"random-{name}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path if path.exists() else write_random_model(path, shape=shape, quantization=Quantization.Q8_0)


MODELS: dict[str, Callable[[], Path]] = {
    "tiny": partial(small_model, "tiny", Shape()),
    "4 layers of 256": partial(small_model, "256", Shape(4000, 256, 4, 8, 8, 768)),
    "6 layers of 288": partial(small_model, "288", Shape(32_000, 288, 6, 6, 6, 768)),
    "SmolLM2 Q4_0": partial(default_model, "q4_0"),
    "SmolLM2 BF16": partial(default_model, "bf16"),
    "8b Q8_0": partial(random_model, "8b", "q8_0"),
}


def sample(n: int, client: SamplingClient, tokens: list[int], steps: int) -> float:
    prompt, params = (
        ModelInput.from_ints(tokens[:N_PROMPT]),
        SamplingParams(max_tokens=steps, stop=[], seed=0),
    )
    start = time.perf_counter()
    client.sample(prompt, n, params).result()
    return time.perf_counter() - start


def score(client: SamplingClient, tokens: list[int], n: int) -> float:
    start = time.perf_counter()
    client.compute_logprobs(ModelInput.from_ints(tokens[:n])).result()
    return time.perf_counter() - start


WORK: dict[str, tuple[Callable[[SamplingClient, list[int], int], float], int, int]] = {
    "1 sample": (partial(sample, 1), 8, 100),  # with the fewest and most steps of a run
    "8 samples": (partial(sample, 8), 8, 100),
    "32 samples": (partial(sample, 32), 4, 50),
    "score": (score, 16, 512),
}


def measure(path: Path, threads: int, rounds: int) -> Iterator[str]:
    one, more = (
        ServiceClient(n_ctx=4096, n_threads=n, prefix_cache=False).create_sampling_client(
            base_model=str(path)
        )
        for n in (1, threads)
    )
    tokens = [i % one.get_tokenizer().vocab_size for i in range(1, 513)]
    for name, (run, fewest, most) in WORK.items():
        run(more, tokens, fewest)
        n = max(fewest, min(most, int(SECONDS / run(more, tokens, fewest) * fewest)))
        pairs = alternate(partial(run, more, tokens, n), partial(run, one, tokens, n), rounds)
        yield f"{name} {pairs.other / n * 1e3:.2f} {pairs.ours / n * 1e3:.2f} ({pairs.ratio:.2f})"


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Run programs that do nothing but compute."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with busy(given.busy):
        for name in given.models.split(","):
            print(f"{name:16s}", end="", flush=True)
            for said in measure(MODELS[name](), given.threads, given.rounds):
                print(f" | {said}", end="", flush=True)
            print()


if __name__ == "__main__":
    main()
