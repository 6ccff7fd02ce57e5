"""Requests and responses as data."""

from __future__ import annotations

import math

import numpy as np

from tinker_local import types


def test_model_input() -> None:
    prompt = types.ModelInput.from_ints([1, 2]).append_int(3)
    prompt = prompt.append(types.EncodedTextChunk(tokens=[4, 5]))
    assert prompt.to_ints() == [1, 2, 3, 4, 5]
    assert prompt.length == 5
    assert len(prompt.chunks) == 3
    assert types.ModelInput.empty().length == 0


def test_sampling_params_have_tinkers_defaults() -> None:
    params = types.SamplingParams()
    assert (params.max_tokens, params.seed, params.stop) == (None, None, None)
    assert (params.temperature, params.top_k, params.top_p) == (1, -1, 1)


def test_lists_are_made_from_arrays() -> None:
    response = types.SampleResponse(
        [types.SampledSequence("stop", np.array([3, 4], np.int32), np.array([-1, -0.5], np.float32))],
        np.array([math.nan, -2.5, -math.inf], np.float32),
        types.TopkLogprobs(
            np.array([[0, 0], [7, 8]], np.int32),
            np.array([[types.NO_LOGPROB] * 2, [-0.25, -3]], np.float32),
        ),
    )
    assert response.prompt_logprobs == [None, -2.5, -math.inf]
    assert response.topk_prompt_logprobs == [None, [(7, -0.25), (8, -3.0)]]
    assert response.samples is response.sequences
    assert response.sequences[0].tokens == [3, 4]
    assert response.sequences[0].logprobs == [-1.0, -0.5]
    assert [type(x) for x in response.sequences[0].tokens] == [int, int]


def test_what_was_not_asked_for_is_none() -> None:
    response = types.SampleResponse([types.SampledSequence("length", np.zeros(0, np.int32))])
    assert response.prompt_logprobs is None
    assert response.topk_prompt_logprobs is None
    assert response.sequences[0].logprobs is None
    assert response.sequences[0].tokens == []
