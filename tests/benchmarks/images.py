"""Sixteen questions about one picture, against sixteen times one question about a picture of its own.

    python -m tests.benchmarks.images [--model FILE] [--rounds N] [--questions N] [--side PIXELS]

FILE is a model with its mmproj file beside it; without one, a random pair is made. Both take turns, and no
picture is seen twice. Prints the median ratio of the times, and the tokens that were computed.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.timing import alternate
from tests.random_tower import picture, write_random_pair
from tinker_local import (
    EncodedTextChunk,
    ImageChunk,
    ModelInput,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)

QUESTION, PARAMS = 24, SamplingParams(max_tokens=8, temperature=0, stop=[])
_seeds = itertools.count(1)
RNG = np.random.default_rng(0)


class Asked:
    """Questions put to a client, and how many tokens of prompts it computed for them."""

    def __init__(self, client: SamplingClient, n: int, side: int) -> None:
        self._client, self._n, self._side = client, n, side
        self.n_computed = 0

    def seconds(self, *, share: bool) -> float:
        pictures = [picture(self._side, self._side, next(_seeds)) for _ in range(1 if share else self._n)]
        prompts = [self._prompt(pictures[i % len(pictures)]) for i in range(self._n)]
        start = time.perf_counter()
        answers = [self._client.sample(prompt, 1, PARAMS) for prompt in prompts]
        cached = sum(answer.result().prompt_cache_hit_tokens for answer in answers)
        seconds = time.perf_counter() - start
        per_prompt = self._client._engine.find_image(pictures[0], "png").n_tokens + 1 + QUESTION
        self.n_computed = self._n * per_prompt - cached
        return seconds

    def _prompt(self, data: bytes) -> ModelInput:
        question = RNG.integers(0, 250, QUESTION).tolist()
        image = ImageChunk(data=data, format="png")
        return ModelInput.from_ints([1]).append(image).append(EncodedTextChunk(tokens=question))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--side", type=int, default=448)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = asked.model or write_random_pair(Path(directory), "qwen3vl", n_layer=6)
        client = ServiceClient(n_ctx=8192).create_sampling_client(base_model=str(path))
        one, many = (Asked(client, asked.questions, asked.side) for _ in range(2))
        pairs = alternate(lambda: one.seconds(share=True), lambda: many.seconds(share=False), asked.rounds)
    print(f"{path.name}: {asked.questions} questions, a picture of {asked.side} x {asked.side} pixels")
    print(f"one picture   {pairs.ours:8.3f} s  {one.n_computed:7,} tokens of prompts computed")
    print(f"one for each  {pairs.other:8.3f} s  {many.n_computed:7,} tokens of prompts computed")
    print(
        f"{pairs.ratio:.2f} times as fast, with {many.n_computed / one.n_computed:.1f} times less computed"
    )


if __name__ == "__main__":
    main()
