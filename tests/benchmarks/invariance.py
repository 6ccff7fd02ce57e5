"""Batch invariance: does it hold, what does it cost, and how far do results vary without it?

    python -m tests.benchmarks.invariance [--type bf16 ...] [--only check|cost|variation]
                                          [--requests N] [--longest N] [--rounds N] [--default]

check       N requests (default 1,000) run twice: one by one on a fresh client, then shuffled from 16
            threads, with the prefix cache and with fewer sequences than samples. Every token and float must
            be equal, and tokens sampled at temperature 1 must equal ``compute_logprobs``. Prompts have 1
            to ``--longest`` tokens (default 1,500), 1 to 8 samples, mixed temperatures and seeds; every
            third one is scored.
            ``--default``: a client without any option, in place of ``batch_invariant``.
cost        the mode against the default, in turn: scoring 512 and 2,048 tokens, decoding 1, 8, 32 samples
variation   without the mode: sampled against scored log-probabilities, and greedy continuations of 64
            tokens, alone against among others
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.engine import decode_ours
from tests.benchmarks.requantized import TYPES, command_line, default_model
from tests.benchmarks.timing import alternate
from tinker_local import ModelInput, SampleResponse, SamplingClient, SamplingParams, ServiceClient

MODE = {"batch_invariant": True, "n_ctx": 2048}


def open_client(path: Path, **options: Any) -> SamplingClient:
    service = ServiceClient(**options)
    return service.create_sampling_client(base_model=str(path))


# -- check ----------------------------------------------------------------------------------------


class Asked:
    """One of many mixed requests; a third of the prompts share a beginning."""

    def __init__(self, number: int, common: list[int], n_vocab: int, longest: int) -> None:
        rng = np.random.default_rng(number)
        # mostly short, since the cost is in the length: 1, 6, 1,500 tokens at the ends and the middle
        n, n_common = (int(most ** rng.uniform() ** 2) for most in (longest, 2 * longest // 3))
        own = rng.integers(20, n_vocab, n).tolist()
        self.prompt = (common[:n_common] + own)[:longest] if number % 3 == 0 else own
        self.n_samples = int(rng.choice([1, 1, 2, 4, 8]))
        self.scores = number % 3 == 1
        self.params = SamplingParams(
            max_tokens=int(rng.integers(1, 13)),
            temperature=float(rng.choice([0, 0.7, 1, 1])),
            top_k=int(rng.choice([-1, -1, 40])),
            seed=number,
            stop=[],
        )

    def submit(self, client: SamplingClient) -> Any:
        prompt, k = ModelInput.from_ints(self.prompt), 5 if self.scores else 0
        return client.sample(
            prompt,
            self.n_samples,
            self.params,
            include_prompt_logprobs=self.scores,
            topk_prompt_logprobs=k,
        )


def everything(response: SampleResponse) -> list[Any]:
    sequences = [(s.tokens, s.logprobs) for s in response.sequences]
    return [sequences, response.prompt_logprobs, response.topk_prompt_logprobs]


def check(path: Path, n_requests: int, longest: int, options: dict[str, Any]) -> None:
    alone = open_client(path, **options)
    n_vocab = alone.get_tokenizer().vocab_size
    common = np.random.default_rng(0).integers(20, n_vocab, 1000).tolist()
    asked = [Asked(number, common, n_vocab, longest) for number in range(n_requests)]
    start = time.perf_counter()
    expected = [everything(request.submit(alone).result()) for request in asked]
    middle = time.perf_counter()
    order = list(range(n_requests))
    random.Random(0).shuffle(order)
    crowded = open_client(path, **options)
    in_a_step: list[int] = []
    crowded._engine._loop._on_step = lambda _, n_sampled: in_a_step.append(n_sampled)
    with ThreadPoolExecutor(16) as pool:
        futures = dict(zip(order, pool.map(lambda i: asked[i].submit(crowded), order), strict=True))
    differ = [number for number in order if everything(futures[number].result()) != expected[number]]
    end = time.perf_counter()
    n_tokens, n_apart = sampled_against_scored(crowded, asked, expected)
    print(
        f"{path.name}: {n_requests} requests, {middle - start:.0f} s alone, {end - middle:.0f} s together "
        f"with up to {max(in_a_step)} samples in a step; "
        f"{len(differ)} differ; {n_tokens} tokens sampled at temperature 1, {n_apart} are scored otherwise",
        flush=True,
    )


def sampled_against_scored(
    client: SamplingClient, asked: list[Asked], answers: list[list[Any]]
) -> tuple[int, int]:
    plain = [
        (request.prompt, tokens, logprobs)
        for request, (sequences, *_) in zip(asked, answers, strict=True)
        if request.params.temperature == 1 and request.params.top_k == -1
        for tokens, logprobs in sequences
    ]
    futures = [client.compute_logprobs(ModelInput.from_ints(p + tokens)) for p, tokens, _ in plain]
    pairs = [
        (sampled, scored)
        for (prompt, _, logprobs), future in zip(plain, futures, strict=True)
        for sampled, scored in zip(logprobs, future.result()[len(prompt) :], strict=True)
    ]
    return len(pairs), sum(sampled != scored for sampled, scored in pairs)


# -- cost -----------------------------------------------------------------------------------------


def score(client: SamplingClient, tokens: list[int]) -> float:
    start = time.perf_counter()
    client.compute_logprobs(ModelInput.from_ints(tokens)).result()
    return time.perf_counter() - start


def cost(path: Path, rounds: int) -> None:
    mode, usual = (
        open_client(path, batch_invariant=mode, prefix_cache=False, n_ctx=8192) for mode in (True, False)
    )
    tokens = np.random.default_rng(0).integers(20, 40000, 2048).tolist()
    for n in (512, 2048):
        pairs = alternate(lambda n=n: score(usual, tokens[:n]), lambda n=n: score(mode, tokens[:n]), rounds)  # type: ignore[misc]
        print(f"{path.name:40s} score {n:5d}      {pairs.ratio:6.2f} {pairs.fastest:6.2f}", flush=True)
    for n in (1, 8, 32):
        pairs = alternate(
            lambda n=n: decode_ours(usual, tokens[:128], n),  # type: ignore[misc]
            lambda n=n: decode_ours(mode, tokens[:128], n),  # type: ignore[misc]
            rounds,
        )
        print(f"{path.name:40s} decode {n:3d} x 64 {pairs.ratio:6.2f} {pairs.fastest:6.2f}", flush=True)


# -- variation ------------------------------------------------------------------------------------


def variation(path: Path, n: int = 20) -> None:
    client = open_client(path, prefix_cache=False, n_ctx=8192)
    words = client.get_tokenizer().encode((Path(__file__).parents[2] / "LICENSE").read_text("utf-8"))
    prompts = [words[start : start + 64] for start in range(0, 64 * n, 64)]
    greedy = SamplingParams(max_tokens=64, temperature=0, stop=[])
    drawn = SamplingParams(max_tokens=64, temperature=1, stop=[], seed=0)

    def sample(prompt: list[int], params: SamplingParams) -> Any:
        return client.sample(ModelInput.from_ints(prompt), 1, params)

    gaps = []
    for prompt in prompts:
        sequence = sample(prompt, drawn).result().sequences[0]
        scored = client.compute_logprobs(ModelInput.from_ints(prompt + sequence.tokens)).result()
        gaps += np.abs(np.array(scored[64:]) - sequence.logprobs_np).tolist()
    alone = [sample(prompt, greedy).result().sequences[0].tokens for prompt in prompts]
    others = [sample(words[i * 50 : i * 50 + 40 + i], drawn) for i in range(20)]
    futures = [sample(prompt, greedy) for prompt in prompts]
    changed = sum(f.result().sequences[0].tokens != a for f, a in zip(futures, alone, strict=True))
    for future in others:
        future.result()
    print(
        f"{path.name:40s} sampled against scored: mean {np.mean(gaps):.4f}, largest {max(gaps):.2f}; "
        f"greedy changed under load: {changed}/{n}",
        flush=True,
    )


def main() -> None:
    parser = command_line(__doc__)
    parser.set_defaults(type=None)
    parser.add_argument("--only", choices=("check", "cost", "variation"))
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--longest", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--default", action="store_true", help="check the mode that is on by default")
    arguments = parser.parse_args()
    if arguments.only in (None, "cost"):
        print("the mode's time over the default's: median and fastest")
    for kind in [arguments.type] if arguments.type else TYPES:
        path = default_model(kind)
        if arguments.only in (None, "check"):
            check(path, arguments.requests, arguments.longest, {} if arguments.default else MODE)
        if arguments.only in (None, "cost"):
            cost(path, arguments.rounds)
        if arguments.only in (None, "variation"):
            variation(path)


if __name__ == "__main__":
    main()
