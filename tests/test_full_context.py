"""A prompt that is only scored may have a token more than the context holds: nothing reads its last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.random_model import ARCHITECTURES, Architecture, Shape, write_random_model
from tinker_local import (
    BadRequestError,
    ModelInput,
    SampleResponse,
    SamplingClient,
    SamplingParams,
    ServiceClient,
    TensorData,
)

N_CTX = 256
TOKENS = np.random.default_rng(3).integers(0, 256, N_CTX + 1).tolist()
ONLY_SCORE = SamplingParams(max_tokens=0)
QUESTIONS: dict[str, dict[str, Any]] = {
    "all": {"include_prompt_logprobs": True},
    "the last": {"include_prompt_logprobs": True, "prompt_logprobs_last_n": 1},
    "the best": {"topk_prompt_logprobs": 3},
    "targets": {"target_prompt_logprobs": TensorData(TOKENS[1:], "int64", [N_CTX, 1])},
    "draws": {"prompt_alt_tokens_k": 2},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def open_client(
    directory: Path, architecture: Architecture = "llama", n_ctx: int = N_CTX, **options: Any
) -> SamplingClient:
    path = directory / f"{architecture}.gguf"
    if not path.exists():
        write_random_model(path, architecture, Shape(n_layer=2))
    given = {"kv_type": "f32", "flash_attn": False, "n_threads": 1, "n_ctx": n_ctx, **options}
    return ServiceClient(**given).create_sampling_client(base_model=str(path))


def asked(client: SamplingClient, tokens: list[int], **question: Any) -> SampleResponse:
    params = SamplingParams(max_tokens=0, seed=5)
    return client.sample(ModelInput.from_ints(tokens), 1, params, **question).result(60)


def numbers(response: SampleResponse) -> list[float]:
    """Return all log-probabilities of a response's prompt; NaN where there is none."""
    found = list[Any](response.prompt_logprobs or [])
    found += [pair[1] for pairs in response.topk_prompt_logprobs or [] for pair in pairs or []]
    for tensor in (response.target_prompt_logprobs, response.prompt_alt_tokens):
        found += [] if tensor is None else list(getattr(tensor, "logprobs", tensor).data)
    return [np.nan if value is None else value for value in found]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_scores_are_those_of_a_larger_context(directory: Path, architecture: Architecture) -> None:
    """Also when all that is read is cached already, and where states cannot step back."""
    client = open_client(directory, architecture)
    larger = open_client(directory, architecture, 2 * N_CTX)
    for _ in range(2):
        for question in QUESTIONS.values():
            found, expected = (numbers(asked(c, TOKENS, **question)) for c in (client, larger))
            assert found
            np.testing.assert_allclose(found, expected, atol=1e-4)
    prompt = ModelInput.from_ints(TOKENS)
    assert client.compute_logprobs(prompt).result(60)[1:] == pytest.approx(
        larger.compute_logprobs(prompt).result(60)[1:], abs=1e-4
    )
    assert client.get_telemetry().counters.tokens_in == 11 * (N_CTX + 1)


def test_other_ends_of_one_text(directory: Path) -> None:
    """The choices of a question: what they share is computed once, and each last token is only scored."""
    client = open_client(directory)
    larger = open_client(directory, n_ctx=2 * N_CTX)
    for last in (1, 2, TOKENS[-1], 1):
        ending = [*TOKENS[:-1], last]
        found, expected = (
            asked(c, ending, include_prompt_logprobs=True, prompt_logprobs_last_n=2).prompt_logprobs
            for c in (client, larger)
        )
        assert found is not None
        assert expected is not None
        assert found[-2:] == pytest.approx(expected[-2:], abs=1e-4)
    assert client.get_telemetry().counters.cache_hit_tokens > 3 * (N_CTX - 2)


def test_the_bits_of_the_invariant_mode(directory: Path) -> None:
    client = open_client(directory, batch_invariant=True, kv_type="f16", flash_attn=None)
    prompt = ModelInput.from_ints(TOKENS)
    first, again = client.compute_logprobs(prompt).result(60), client.compute_logprobs(prompt).result(60)
    shorter = client.compute_logprobs(ModelInput.from_ints(TOKENS[:-1])).result(60)
    assert first == again
    assert first[:-1] == shorter


@pytest.mark.parametrize(
    ("n_more", "max_tokens", "question"),
    [
        (1, 0, {}),
        (1, 1, QUESTIONS["all"]),
        (1, None, QUESTIONS["all"]),
        (2, 0, QUESTIONS["all"]),
    ],
)
def test_more_is_refused(
    directory: Path, n_more: int, max_tokens: int | None, question: dict[str, Any]
) -> None:
    client = open_client(directory)
    prompt = ModelInput.from_ints([1] * (N_CTX + n_more))
    with pytest.raises(BadRequestError, match=f"prompt has {N_CTX + n_more} tokens"):
        client.sample(prompt, 1, SamplingParams(max_tokens=max_tokens), **question)
