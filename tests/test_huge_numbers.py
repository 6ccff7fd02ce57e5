"""Numbers that no machine number holds: each is refused in a short message, and nothing is harmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local import (
    BadRequestError,
    ModelInput,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)

HUGE = {"400 digits": 10**400, "5,000 digits": 10**5000, "negative": -(10**5000)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module")
def client(model: Path) -> SamplingClient:
    return ServiceClient(n_ctx=256, n_threads=1).create_sampling_client(base_model=str(model))


class Odd:
    def __float__(self) -> float:
        raise ValueError("no number")

    def __repr__(self) -> str:
        raise RuntimeError("no words")


def refused(call: Any, *arguments: Any, **named: Any) -> None:
    with pytest.raises(BadRequestError) as caught:
        call(*arguments, **named)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("number", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "max_tokens", "stop"])
def test_parameters(client: SamplingClient, name: str, number: int) -> None:
    if name == "top_k" and number > 0:
        pytest.skip("all tokens, however many more")
    params = SamplingParams(**{"max_tokens": 3, name: [number] if name == "stop" else number})
    refused(client.sample, ModelInput.from_ints([1]), 1, params)


@pytest.mark.parametrize("number", HUGE.values(), ids=HUGE)
def test_arguments(client: SamplingClient, number: int) -> None:
    params, prompt = SamplingParams(max_tokens=3), ModelInput.from_ints([1, 2])
    refused(client.sample, prompt, number, params)
    refused(client.sample, prompt, 1, params, topk_prompt_logprobs=number)
    refused(client.sample, prompt, 1, params, topk_sample_logprobs=number)
    refused(client.sample, prompt, 1, params, prompt_alt_tokens_k=number)
    refused(client.compute_logprobs, prompt, number)
    refused(client.compute_logprobs, ModelInput.from_ints([1, number]))
    client.sample(prompt, 1, SamplingParams(max_tokens=3, seed=abs(number))).result(60)


def test_objects_that_are_no_numbers(client: SamplingClient) -> None:
    params = SamplingParams(max_tokens=3)
    params.temperature = Odd()  # type: ignore[assignment]
    refused(client.sample, ModelInput.from_ints([1]), 1, params)
    refused(client.sample, ModelInput.from_ints([1]), Odd(), SamplingParams(max_tokens=3))


@pytest.mark.parametrize("number", HUGE.values(), ids=HUGE)
def test_scales_and_options(model: Path, tmp_path: Path, number: int) -> None:
    adapter = random_adapter(model).write(tmp_path / "adapter.gguf")
    service = ServiceClient(n_ctx=256, n_threads=1)
    refused(service.create_sampling_client, str(adapter), str(model), lora_scale=number)
    refused(ServiceClient, n_ctx=number)


def test_targets(client: SamplingClient) -> None:
    class Foreign:
        dtype, shape, sparse_crow_indices, sparse_col_indices = "int64", [1, 1], None, None
        data = [10**400]  # noqa: RUF012

    prompt = ModelInput.from_ints([1, 2])
    refused(client.sample, prompt, 1, SamplingParams(max_tokens=1), target_prompt_logprobs=Foreign())
