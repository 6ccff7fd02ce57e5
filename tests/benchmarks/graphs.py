"""llama.cpp's graphs with our kernels in them against llama.cpp alone: scoring, and decoding.

    python -m tests.benchmarks.graphs [--type q4_0] [--random 8b|moe] [--ours attention|all]
                                      [--rounds N] [--threads N] [--path avx512 ..]

Two bare loops take turns on one file: ``llama_decode`` on prepared batches, with all sequences in one
cache. llama.cpp has repacked weights. Ours is attention alone, or attention and products.
``beside 4000`` are cells that the query does not see. In ``scattered cells`` each of a prompt's tokens
has its cell far from its neighbours', as where prompts were computed together. Prints the median ratio of
neighbouring runs, llama.cpp's time / ours: above 1 ours is faster.

Of several SIMD paths of ours, each has a column. On a machine with AMX, this measures products in tiles:

    python -m tests.benchmarks.graphs --type bf16 --threads 2 --path amx avx512
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np

from tests.benchmarks.requantized import chosen_model, command_line
from tests.benchmarks.timing import alternate
from tinker_local import kernels
from tinker_local.llama.backend import start_backend
from tinker_local.llama.context import Context
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.model import load_model

N_BATCH, N_SEQUENCES, N_PROMPT = 512, 64, 128
RNG = np.random.default_rng(0)


def decode(
    context: Context, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int]
) -> float:
    """Decode tokens, each with its row of logits; return the seconds."""
    start, batch = perf_counter(), context.batch
    for first in range(0, len(tokens), N_BATCH):
        part = slice(first, first + N_BATCH)
        n = len(tokens[part])
        batch.tokens[:n], batch.positions[:n] = tokens[part], positions[part]
        batch.sequences[:n], batch.flags[:n] = sequences[part], 1
        context.decode(n)
    return perf_counter() - start


def prefill(context: Context, sequence: int, n: int) -> float:
    return decode(context, RNG.integers(0, context.model.n_vocab, n).tolist(), range(n), [sequence] * n)


def prefill_scattered(context: Context, n: int) -> None:
    """Compute sequence 0 so that the tokens of seven others lie between its tokens, and forget these."""
    sequences = list(range(8))
    tokens = RNG.integers(0, context.model.n_vocab, 8 * n).tolist()
    decode(context, tokens, np.repeat(np.arange(n), 8).tolist(), sequences * n)
    for sequence in sequences[1:]:
        context.remove_sequence(sequence)


@dataclass(frozen=True)
class Scoring:
    """A prompt with a row for each token; beside cells of other sequences."""

    n: int
    n_beside: int = 0

    def prepare(self, context: Context) -> None:
        clear(context)
        fill(context, self.n_beside)

    def run(self, context: Context) -> float:
        context.remove_sequence(0)
        return prefill(context, 0, self.n)


def clear(context: Context) -> None:
    for sequence in range(N_SEQUENCES):
        context.remove_sequence(sequence)


def fill(context: Context, n: int) -> None:
    for number in range(n // 1000):
        prefill(context, N_SEQUENCES - 1 - number, 1000)


@dataclass(frozen=True)
class Decoding:
    """Steps of some samples: of one prompt, or each of its own; beside cells of other sequences."""

    n_samples: int
    n_prompt: int = N_PROMPT
    has_own_prompts: bool = False
    is_scattered: bool = False
    n_beside: int = 0
    n_steps: int = 12

    def prepare(self, context: Context) -> None:
        clear(context)
        fill(context, self.n_beside)
        if self.is_scattered:
            prefill_scattered(context, self.n_prompt)
        else:
            prefill(context, 0, self.n_prompt)
        for sequence in range(1, self.n_samples):
            if self.has_own_prompts:
                prefill(context, sequence, self.n_prompt)
            else:
                context.copy_sequence(0, sequence, self.n_prompt)

    def run(self, context: Context) -> float:
        n, samples = self.n_samples, range(self.n_samples)
        seconds = sum(
            decode(context, [1000] * n, [self.n_prompt + step] * n, samples) for step in range(self.n_steps)
        )
        for sample in samples:
            context.truncate_sequence(sample, self.n_prompt)
        return seconds


CASES: dict[str, Scoring | Decoding] = {
    "score 512": Scoring(512),
    "score 512, beside 4000": Scoring(512, n_beside=4000),
    "score 2048": Scoring(2048),
    "decode 1": Decoding(1),
    "decode 1, beside 4000": Decoding(1, n_beside=4000),
    "decode 1, prompt of 3000": Decoding(1, n_prompt=3000),
    "decode 1, prompt of 1000": Decoding(1, n_prompt=1000),
    "decode 1, its cells scattered": Decoding(1, n_prompt=1000, is_scattered=True),
    "decode 8": Decoding(8),
    "decode 8, beside 4000": Decoding(8, n_beside=4000),
    "decode 8, cells scattered": Decoding(8, n_prompt=1000, is_scattered=True),
    "decode 32": Decoding(32),
    "decode 32, beside 4000": Decoding(32, n_beside=4000),
    "decode 32, own prompts": Decoding(32, has_own_prompts=True),
}


def main() -> None:
    """Print the table."""
    parser = command_line(__doc__, takes_random=True)
    parser.add_argument("--ours", choices=["attention", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--path", nargs="+", help="our SIMD paths; the best one, unless given")
    given = parser.parse_args()
    start_backend()
    simd_paths = given.path or [kernels.simd_path()]
    path, own_products = chosen_model(given), given.ours == "all"
    theirs = ContextPlan(
        n_ctx=8192,
        n_sequences=N_SEQUENCES,
        n_batch=N_BATCH,
        n_rows=N_BATCH,
        n_threads=given.threads,
        flash_attn=True,
    )
    other = Context(load_model(path, 0), theirs)
    ours = Context(
        load_model(path, 0, repack=not own_products),
        replace(theirs, own_attention=True, own_products=own_products),
    )
    print(f"{'':30s}", *(f"{simd_path:>8s}" for simd_path in simd_paths))
    for name, case in CASES.items():
        for context in (ours, other):
            case.prepare(context)
        print(f"{name:30s}", end="")
        for simd_path in simd_paths:
            kernels.use_simd_path(simd_path)
            pairs = alternate(partial(case.run, ours), partial(case.run, other), given.rounds)
            print(f" {pairs.ratio:8.2f}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
