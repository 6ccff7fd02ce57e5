"""Our engine against the bare llama.cpp loop: scoring a prompt, and decoding 1, 8 and 32 samples.

    python -m tests.benchmarks.engine [MODEL.gguf | --type bf16 | --random-vocabulary N] [--rounds N]

``--random-vocabulary 262144`` makes a random Q8_0 model of about the shape of Gemma 3 270M, in which
logits are most of the work. ``--type`` uses the default model as q4_1 (its own type), bf16 or q4_0.

Engine and bare loop take turns in one process, with the same file, threads and context size. The bare loop
is ``llama_decode`` on a prepared batch and nothing else.

Prints three numbers: median tokens/s; the median ratio of neighbouring runs; the ratio of the fastest runs,
which other work on the machine disturbs least. 1.00 is the speed of the bare loop.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.bare_loop import BareLoop
from tests.benchmarks.requantized import command_line, default_model
from tests.benchmarks.timing import alternate
from tests.random_model import Quantization, Shape, write_random_model
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient
from tinker_local.store.model_store import ModelStore

N_CTX = 8192
N_SCORED, N_PROMPT, N_NEW = 512, 128, 64


def score_ours(client: SamplingClient, tokens: list[int]) -> float:
    prompt, params = ModelInput.from_ints(tokens), SamplingParams(max_tokens=0)
    start = time.perf_counter()
    client.sample(prompt, 1, params, include_prompt_logprobs=True, topk_prompt_logprobs=20).result()
    return time.perf_counter() - start


def score_bare(bare: BareLoop, tokens: list[int]) -> float:
    n = len(tokens)
    bare.clear()
    return bare.decode(tokens, np.arange(n), [0] * n, np.ones(n))


def decode_ours(client: SamplingClient, tokens: list[int], n_samples: int) -> float:
    """Return the seconds of decoding, from the last sample's first token to the last token of all."""
    times: list[float] = []
    params = SamplingParams(max_tokens=N_NEW + 1, stop=[], seed=0)
    client.sample(
        ModelInput.from_ints(tokens),
        n_samples,
        params,
        on_token=lambda *_: times.append(time.perf_counter()),
    ).result()
    assert len(times) == n_samples * (N_NEW + 1)
    return times[-1] - times[n_samples - 1]


def decode_bare(bare: BareLoop, tokens: list[int], n_samples: int) -> float:
    n = len(tokens)
    bare.clear()
    bare.decode(tokens, np.arange(n), [0] * n, np.arange(n) == n - 1)
    bare.fork(n_samples)
    sequences, flags = range(n_samples), np.ones(n_samples)
    steps = range(n, n + N_NEW)
    return sum(bare.decode([1000] * n_samples, [p] * n_samples, sequences, flags) for p in steps)


def compare(
    name: str, n_tokens: int, ours: Callable[[], float], bare: Callable[[], float], rounds: int
) -> None:
    pairs = alternate(ours, bare, rounds)
    rates = f"{n_tokens / pairs.ours:8.1f} {n_tokens / pairs.other:8.1f}"
    print(f"{name:30s} {rates} {pairs.ratio:10.3f} {pairs.fastest:10.3f}", flush=True)


def measure(path: Path, rounds: int) -> None:
    client = ServiceClient(n_ctx=N_CTX, prefix_cache=False).create_sampling_client(base_model=str(path))
    bare = BareLoop(path, n_ctx=N_CTX, n_sequences=64)
    rng = np.random.default_rng(0)
    tokens = rng.integers(10, bare.n_vocab - 10, N_SCORED).tolist()
    print(f"{path.name}, tokens/s\n{'':30s} {'ours':>8s} {'bare':>8s} {'ours/bare':>10s} {'fastest':>10s}")
    compare(
        f"score {N_SCORED} tokens with top-20",
        N_SCORED,
        lambda: score_ours(client, tokens),
        lambda: score_bare(bare, tokens),
        rounds,
    )
    for n in (1, 8, 32):
        compare(
            f"decode {n} x {N_NEW} after {N_PROMPT}",
            n * N_NEW,
            lambda n=n: decode_ours(client, tokens[:N_PROMPT], n),  # type: ignore[misc]
            lambda n=n: decode_bare(bare, tokens[:N_PROMPT], n),  # type: ignore[misc]
            rounds,
        )


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--random-vocabulary", type=int, metavar="N")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.random_vocabulary is None:
        given, kind = arguments.model, arguments.type
        measure(ModelStore().resolve(given) if given else default_model(kind), arguments.rounds)
        return
    shape = Shape(arguments.random_vocabulary, n_embd=640, n_layer=18, n_head=5, n_head_kv=1, n_ff=2048)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"random-{shape.n_vocab}.gguf"
        write_random_model(path, shape=shape, quantization=Quantization.Q8_0)
        measure(path, arguments.rounds)


if __name__ == "__main__":
    main()
