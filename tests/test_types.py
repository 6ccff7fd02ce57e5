"""Requests and responses as data."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest

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
        [types.SampledSequence("stop", "a", np.array([3, 4], np.int32), np.array([-1, -0.5], np.float32))],
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
    response = types.SampleResponse([types.SampledSequence("length", "a", np.zeros(0, np.int32))])
    assert response.prompt_logprobs is None
    assert response.topk_prompt_logprobs is None
    assert response.sequences[0].logprobs is None
    assert response.sequences[0].tokens == []


def test_lists_can_be_given_in_the_place_of_arrays() -> None:
    """As the SDK's tests and users make answers by hand."""
    sequence = types.SampledSequence("stop", "", _tokens_list=[1, 2], _logprobs_list=[-1.0, -2.0])
    assert (sequence.tokens, sequence.logprobs, sequence.topk_logprobs) == ([1, 2], [-1.0, -2.0], None)
    response = types.SampleResponse([sequence], _prompt_logprobs_list=[None, -1.0])
    assert response.prompt_logprobs == [None, -1.0]


class _Decoder:
    def decode(self, token_ids: Any) -> str:
        return "<b>" + " ".join(map(str, token_ids))

    def token_bytes(self, token_id: int) -> bytes:
        return b"<b>%d" % token_id


def test_what_a_repl_and_a_notebook_show() -> None:
    decoder = _Decoder()
    tokens, logprobs = np.arange(40, dtype=np.int32), np.full(40, -0.5, np.float32)
    bare = types.SampledSequence("length", "a", tokens, logprobs)
    assert "40 tokens" in repr(bare)
    assert "logprob=-20.000" in repr(bare)
    assert "tokens=[0, 1, 2" in repr(bare)
    assert len(repr(bare)) < 200
    decoded = types.SampledSequence("stop", "a", tokens, logprobs, _detokenizer=lambda: decoder)
    assert "text='<b>0 1" in repr(decoded)
    response = types.SampleResponse([decoded] * 50, np.zeros(7, np.float32))
    assert "and 42 more" in repr(response)
    assert "prompt_logprobs of 7 tokens" in repr(response)
    html = response._repr_html_()
    assert ">&lt;b&gt;39</span>" in html
    assert "<b>" not in html, "what a model writes is no markup"
    assert html.count(" · stop · 40 tokens · ") == 32
    assert "18 more" in html
    for again in (pickle.loads(pickle.dumps(response)), copy.deepcopy(response)):
        assert again.sequences[0].text is None, "the decoder belongs to this process"
        assert again.sequences[0].tokens == decoded.tokens


def test_tensors() -> None:
    dense = types.TensorData.from_numpy(np.arange(6, dtype=np.int32).reshape(2, 3))
    assert (dense.dtype, dense.shape, dense.data) == ("int64", [2, 3], [0, 1, 2, 3, 4, 5])
    assert dense.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert types.TensorData([1, 2], "float32").to_numpy().dtype == np.float32
    assert types.TensorData(None, "int64").data == []
    csr = types.TensorData([7, 8], "int64", [3, 4], [0, 1, 1, 2], [2, 0])
    assert csr.tolist() == [[0, 0, 7, 0], [0, 0, 0, 0], [8, 0, 0, 0]]
    assert csr.tolist(-1) == [[-1, -1, 7, -1], [-1, -1, -1, -1], [8, -1, -1, -1]]
    assert csr.data == [7, 8]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (([1],), TypeError, "dtype"),
        (([1], "int32"), ValueError, "int32"),
        (([1, 2, 3], "int64", [2, 2]), ValueError, "reshape"),
        (([1], "int64", [2, 2], [0, 1], [0]), ValueError, "2 entries; 2 rows need 3"),
        (([1], "int64", [2, 2], [0, 1, 1], [2]), ValueError, "from 0 to 1"),
        (([1], "int64", [2, 2], [0, 1, 2], [0]), ValueError, "rise from 0"),
        (([1], "int64", [2, 2], [0, 1, 1], [0, 1]), ValueError, "2 entries; 1 values need as many"),
        (([1], "int64", None, [0, 1], [0]), ValueError, "shape of two extents"),
    ],
)
def test_tensors_that_are_none(arguments: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        types.TensorData(*arguments).to_numpy()


def test_from_numpy_refuses_other_kinds() -> None:
    with pytest.raises(ValueError, match="bool"):
        types.TensorData.from_numpy(np.array([True]))
    with pytest.raises(TypeError, match=r"1\.5"):
        types.TensorData([1], "int64", [1, 2], [0, 1], [0]).to_numpy(1.5)  # type: ignore[arg-type]


def test_the_parts_of_a_path() -> None:
    parsed = types.ParsedCheckpointTinkerPath.from_tinker_path("tinker://run/sampler_weights/7")
    assert (parsed.training_run_id, parsed.checkpoint_type) == ("run", "sampler")
    assert parsed.checkpoint_id == "sampler_weights/7"
    for wrong in ("run/weights/7", "tinker://run/7", "tinker://run/other/7"):
        with pytest.raises(ValueError, match="tinker://RUN/KIND/NAME"):
            types.ParsedCheckpointTinkerPath.from_tinker_path(wrong)


def test_images_have_a_length_if_it_is_given() -> None:
    image = types.ImageChunk(data=b"\x89PNG", format="png", expected_tokens=5)
    pointer = types.ImageAssetPointerChunk(location="a.jpg", format="jpeg", expected_tokens=4)
    prompt = types.ModelInput.from_ints([1, 2]).append(image).append(pointer).append_int(3)
    assert prompt.length == 12
    assert types.ModelInput.model_validate_json(prompt.model_dump_json()) == prompt
    assert json.loads(image.model_dump_json())["data"] == "iVBORw=="
    with pytest.raises(ValueError, match="has images"):
        prompt.to_ints()
    with pytest.raises(ValueError, match="expected_tokens"):
        types.ModelInput(chunks=[image.model_copy(update={"expected_tokens": None})]).length  # noqa: B018
    for wrong in ({"format": "gif"}, {"data": "abc"}, {"expected_tokens": "many"}, {"more": 1}):
        with pytest.raises(ValueError, match="ImageChunk"):
            types.ImageChunk(**({"data": b"", "format": "png"} | wrong))
