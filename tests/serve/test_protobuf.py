"""The bytes of an answer. ``tests/parity/test_serve_sdk.py`` has the SDK read them."""

from __future__ import annotations

import numpy as np

from tinker_local import PromptAltTokens, SampledSequence, SampleResponse, TensorData, TopkLogprobs
from tinker_local.serve.tinker_api.protobuf import encode_response


def test_tokens_and_logprobs() -> None:
    tokens, logprobs = np.array([1, 300], np.int32), np.array([-0.5, -2.0], np.float32)
    response = SampleResponse(
        [SampledSequence("length", "", tokens, logprobs)],
        prompt_logprobs_np=np.array([np.nan, -1.0], np.float32),
        prompt_cache_hit_tokens=300,
    )
    assert encode_response(response).hex(" ") == (
        "0a 16 08 01 12 08 01 00 00 00 2c 01 00 00 1a 08 00 00 00 bf 00 00 00 c0 "
        "12 08 00 00 c0 7f 00 00 80 bf 20 ac 02"
    )


def test_alternatives() -> None:
    topk = TopkLogprobs(np.array([[7, 9]], np.int32), np.array([[-0.5, -99999.0]], np.float32))
    sequence = SampledSequence("stop", "", np.array([7], np.int32), None, topk)
    assert encode_response(SampleResponse([sequence])).hex(" ") == (
        "0a 20 12 04 07 00 00 00 22 18 0a 08 07 00 00 00 09 00 00 00 "
        "12 08 00 00 00 bf 80 4f c3 c7 18 02 20 01"
    )


def test_targets_and_drawn_alternatives() -> None:
    sparse = TensorData(np.array([-0.5], np.float32), "float32", [2, 3], [0, 0, 1], [2])
    drawn = PromptAltTokens(
        TensorData.from_numpy(np.array([[5]])), TensorData.from_numpy(np.array([[-1.0]], np.float32))
    )
    response = SampleResponse([], target_prompt_logprobs=sparse, prompt_alt_tokens=drawn)
    assert encode_response(response).hex(" ") == (
        "2a 32 12 2a 0a 04 00 00 00 bf 12 18 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 "
        "01 00 00 00 00 00 00 00 1a 08 02 00 00 00 00 00 00 00 18 01 22 02 02 03 "
        "32 20 0a 10 0a 08 05 00 00 00 00 00 00 00 18 02 22 02 01 01 "
        "12 0c 0a 04 00 00 80 bf 18 01 22 02 01 01"
    )
