"""What users check on Tinker's service: sampled log-probabilities and temperature, long against alone.

Two tokens i, j in one place differ by ``logp_T(i) - logp_T(j) = (logp_1(i) - logp_1(j)) / T``, and a token
has one log-probability, whether it came in a long continuation or alone after the same prefix.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.random_model import ARCHITECTURES, Architecture, Shape, write_random_model
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient, Tokenizer
from tinker_local.engine.own_kernels import own_products
from tinker_local.kernels import reference
from tinker_local.options import Options

TEMPERATURES = (0.3, 0.5, 0.7, 1.0, 1.5, 3.0)
N_VOCAB = Shape().n_vocab


@pytest.fixture(scope="module")
def invariant() -> SamplingClient:
    service = ServiceClient(n_ctx=256, batch_invariant=True)
    return service.create_sampling_client(base_model="SmolLM2-135M-Instruct")


def prompt(tokens: list[int]) -> ModelInput:
    return ModelInput.from_ints(tokens)


def largest_pairwise(sampled: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    """The largest error of a difference between two of them is the range of the errors."""
    return float(np.ptp(sampled - exact))


def test_the_temperature_law_by_compute_logprobs(invariant: SamplingClient, tokenizer: Tokenizer) -> None:
    """As published: continuations of one token at several temperatures, scored afterwards."""
    tokens = tokenizer.encode("Once upon a time there was a")
    worst = 0.0
    for temperature in TEMPERATURES:
        params = SamplingParams(max_tokens=1, temperature=temperature, seed=7, stop=[])
        response = invariant.sample(prompt(tokens), 16, params).result(100)
        sampled = {s.tokens[0]: (s.logprobs or [])[0] for s in response.sequences}
        assert len(sampled) > 3, "pairs of different tokens"
        futures = [invariant.compute_logprobs(prompt([*tokens, token]), 1) for token in sampled]
        plain = np.array([future.result(100)[-1] for future in futures], np.float64)
        gap = largest_pairwise(np.array([*sampled.values()]), plain / temperature)
        worst = max(worst, gap)
    print(f"largest pairwise error: {worst:.1e}")
    assert worst <= 1e-4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_temperature_law_on_whole_rows(architecture: Architecture, tmp_path: Path) -> None:
    """Each sampled token against float64 on the same row of logits, in the usual mode, cut and not."""
    path = write_random_model(tmp_path / "tiny.gguf", architecture)
    client = ServiceClient(n_ctx=512, n_threads=1).create_sampling_client(base_model=str(path))
    for temperature in (0.1, *TEMPERATURES):
        for top_k, top_p in ((-1, 1.0), (20, 1.0), (-1, 0.8)):
            params = SamplingParams(
                max_tokens=12, temperature=temperature, top_k=top_k, top_p=top_p, seed=3, stop=[]
            )
            response = client.sample(prompt([1, 2, 3]), 4, params, topk_sample_logprobs=N_VOCAB).result(60)
            for sequence in response.sequences:
                assert sequence.topk_logprobs_np is not None
                assert sequence.logprobs is not None
                rows = np.empty((12, N_VOCAB))
                top = sequence.topk_logprobs_np
                np.put_along_axis(rows, top.token_ids.astype(int), top.logprobs.astype(float), axis=1)
                exact = [
                    np.log(reference.truncated(row, temperature, top_k, top_p)[token])
                    for row, token in zip(rows, sequence.tokens, strict=True)
                ]
                assert largest_pairwise(np.array(sequence.logprobs), np.array(exact)) <= 1e-4


def alone(client: SamplingClient, tokens: list[int], continuation: list[int]) -> list[float]:
    """Log-probabilities of a continuation's tokens, each sampled by itself after what came before it.

    Streams of random numbers go by position, so the seed draws the same token again.
    """
    params = SamplingParams(max_tokens=1, seed=11, stop=[])
    found = []
    for n in range(len(continuation)):
        before = prompt([*tokens, *continuation[:n]])
        (sequence,) = client.sample(before, 1, params).result(100).sequences
        if sequence.tokens == continuation[n : n + 1]:
            found += sequence.logprobs or []
        else:  # where two tokens meet, last bits decide; the scored one is of the same prefix
            found.append(
                client.compute_logprobs(prompt([*before.to_ints(), continuation[n]])).result(100)[-1]
            )
    return found


def test_long_and_alone_are_the_same_bits(invariant: SamplingClient, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("The history of the railway begins")
    params = SamplingParams(max_tokens=24, seed=11, stop=[])
    long = invariant.sample(prompt(tokens), 3, params).result(100).sequences[0]
    assert alone(invariant, tokens, long.tokens) == long.logprobs


@pytest.mark.long
def test_long_and_alone_in_the_usual_mode(tokenizer: Tokenizer, english: str) -> None:
    """llama.cpp rounds differently for one token and for many, and a 4-bit file amplifies that."""
    client = ServiceClient(n_ctx=512, prefix_cache=False).create_sampling_client(
        base_model="SmolLM2-135M-Instruct"
    )
    tokens = tokenizer.encode(english)[:80]
    params = SamplingParams(max_tokens=4, seed=11, stop=[])
    long = client.sample(prompt(tokens), 3, params).result(100).sequences[0]
    gaps = np.abs(np.array(alone(client, tokens, long.tokens)) - np.array(long.logprobs))
    print(f"long against alone: mean {gaps.mean():.4f}, largest {gaps.max():.4f}")
    assert gaps.mean() == 0 if own_products(Options()) else 0 < gaps.mean() < 0.3
