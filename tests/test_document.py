"""The three examples of Tinker's SamplingClient document of 2025-11, as written there.

Only the imports and the model's name are ours. ``print`` is captured and looked at.
"""

from __future__ import annotations

import pytest

from tinker_local import SamplingClient, ServiceClient, types


@pytest.fixture(scope="module")
def service_client(service: ServiceClient) -> ServiceClient:
    return service


def test_class_example(service_client: ServiceClient) -> None:
    sampling_client = service_client.create_sampling_client(base_model="SmolLM2-135M-Instruct")
    tokenizer = sampling_client.get_tokenizer()
    prompt = types.ModelInput.from_ints(tokenizer.encode("The weather today is"))
    params = types.SamplingParams(max_tokens=20, temperature=0.7)
    future = sampling_client.sample(prompt=prompt, sampling_params=params, num_samples=1)
    result = future.result()

    assert len(result.samples) == 1
    assert 1 <= len(result.samples[0].tokens) <= 20


def test_sample_example(client: SamplingClient, capsys: pytest.CaptureFixture[str]) -> None:
    sampling_client = client
    tokenizer = sampling_client.get_tokenizer()
    prompt = types.ModelInput.from_ints(tokenizer.encode("The weather today is"))
    params = types.SamplingParams(max_tokens=20, temperature=0.7)
    future = sampling_client.sample(prompt=prompt, sampling_params=params, num_samples=1)
    result = future.result()
    for sample in result.samples:
        print(tokenizer.decode(sample.tokens))

    assert capsys.readouterr().out.strip()


def test_compute_logprobs_example(client: SamplingClient, capsys: pytest.CaptureFixture[str]) -> None:
    sampling_client = client
    tokenizer = sampling_client.get_tokenizer()
    prompt = types.ModelInput.from_ints(tokenizer.encode("Hello world"))
    future = sampling_client.compute_logprobs(prompt)
    logprobs = future.result()
    for i, logprob in enumerate(logprobs):
        if logprob is not None:
            print(f"Token {i}: logprob = {logprob:.4f}")

    assert len(logprobs) == prompt.length == 2
    assert logprobs[0] is None
    assert logprobs[1] is not None
    assert -20 < logprobs[1] < 0
    assert capsys.readouterr().out.startswith("Token 1: logprob = -")


async def _asynchronously(sampling_client: SamplingClient) -> None:
    prompt = types.ModelInput.from_ints(sampling_client.get_tokenizer().encode("Once upon a time"))
    params = types.SamplingParams(max_tokens=5, temperature=0)
    response = await sampling_client.sample_async(
        prompt, 1, params, include_prompt_logprobs=True, topk_prompt_logprobs=3
    )
    assert response.prompt_logprobs == await sampling_client.compute_logprobs_async(prompt)
    assert response.topk_prompt_logprobs is not None
    assert [entry and len(entry) for entry in response.topk_prompt_logprobs] == [None, 3, 3, 3]


def test_async_versions(client: SamplingClient) -> None:
    import asyncio

    asyncio.run(_asynchronously(client))
