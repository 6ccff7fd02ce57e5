"""Scripts in the manner of the SDK's documentation of today; ``import tinker`` is the line that changed."""

from __future__ import annotations

import asyncio
import concurrent.futures

import pytest

import tinker_local as tinker
from tinker_local import types

MODEL = "SmolLM2-135M-Instruct"


async def script() -> None:
    service_client = tinker.ServiceClient(user_metadata={"purpose": "evaluation"}, project_id="mine")
    capabilities = await service_client.get_server_capabilities_async()
    assert MODEL in [model.model_name for model in capabilities.supported_models]

    sampling_client = await service_client.create_sampling_client(base_model=MODEL)
    tokenizer = sampling_client.get_tokenizer()
    prompt = types.ModelInput.from_ints(tokenizer.encode("The weather today is"))
    params = types.SamplingParams(max_tokens=4, temperature=0.7, stop=["\n"], seed=1)

    response: types.SampleResponse = await sampling_client.sample(prompt, 2, params)
    for sequence in response.sequences:
        assert sequence.stop_reason in ("stop", "length")
        assert sequence.logprobs is not None
        assert len(sequence.logprobs) == len(sequence.tokens) <= 4
        assert tokenizer.decode(sequence.tokens)

    logprobs = await sampling_client.compute_logprobs(prompt)
    assert [logprob is None for logprob in logprobs] == [True, False, False, False]
    last = await sampling_client.compute_logprobs_async(prompt, prompt_logprobs_last_n=1)
    assert [logprob is None for logprob in last] == [True, True, True, False]

    answers = await asyncio.gather(*[sampling_client.sample_async(prompt, 1, params) for _ in range(3)])
    assert [len(answer.sequences) for answer in answers] == [1, 1, 1]
    task = asyncio.create_task(sampling_client.sample(prompt, 1, params).coroutine())
    assert (await task).sequences
    assert await sampling_client.get_base_model_async() == MODEL
    await service_client.close("success")


def test_a_script_that_awaits() -> None:
    asyncio.run(script())


def test_a_script_that_does_not() -> None:
    config = tinker.RetryConfig(max_connections=2)
    with tinker.ServiceClient() as service_client:
        future = service_client.create_sampling_client(base_model=MODEL, retry_config=config)
        sampling_client = future.result()
        tokens = sampling_client.get_tokenizer().encode("The weather today is")
        prompt = tinker.ModelInput(chunks=[tinker.EncodedTextChunk(tokens=tokens)])
        candidates = tinker.TensorData([5, -1, -1, 7, 8, -1], dtype="int64", shape=[3, 2])
        response = sampling_client.sample(
            prompt=prompt,
            num_samples=1,
            sampling_params=tinker.SamplingParams(max_tokens=2, temperature=0.0),
            include_prompt_logprobs=True,
            topk_prompt_logprobs=3,
            topk_sample_logprobs=2,
            target_prompt_logprobs=candidates,
            prompt_alt_tokens_k=2,
        ).result(timeout=100)
        assert response.prompt_logprobs_np is not None
        assert response.topk_prompt_logprobs_np is not None
        assert response.target_prompt_logprobs is not None
        assert response.prompt_alt_tokens is not None
        assert response.prompt_logprobs_np.shape == (4,)
        assert response.topk_prompt_logprobs_np.token_ids.shape == (4, 3)
        assert response.target_prompt_logprobs.shape == candidates.shape
        assert response.prompt_alt_tokens.tokens.shape == [3, 2]
        assert [len(row or []) for row in response.sequences[0].topk_logprobs or []] == [2, 2]

        futures = [sampling_client.compute_logprobs(prompt) for _ in range(6)]
        assert all(isinstance(one, tinker.APIFuture) for one in futures)
        done, waiting = concurrent.futures.wait(futures, timeout=100)
        assert (len(done), len(waiting)) == (6, 0)

        with pytest.raises(tinker.BadRequestError, match="temperature"):
            sampling_client.sample(prompt, 1, tinker.SamplingParams(temperature=-1))
        with pytest.raises(tinker.APIStatusError) as caught:
            service_client.create_sampling_client(base_model="no/such-model")
        assert caught.value.status_code == 404
        with pytest.raises(tinker.TinkerError, match="belongs to Tinker's service"):
            service_client.create_lora_training_client(base_model=MODEL, rank=8)  # type: ignore[attr-defined]
