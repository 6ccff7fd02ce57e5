"""The whole sampling surface against the official package: names, parameters, defaults, fields, types.

The package is walked with ``inspect``. What differs is listed in the README, each with its reason, and
nothing else does.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinker_local
from tests.parity.surface import differences, public
from tinker_local import SamplingClient, types

pytestmark = pytest.mark.parity

tinker = pytest.importorskip("tinker")

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
OURS_IS_THE_CLIENT = "BackcompatSamplingClientFuture"
INTERNAL = ("SamplingClient.__init__.", "SamplingClient.create", "ServiceClient.holder")
"""Clients are made by ServiceClient.create_sampling_client; the last is deprecated there."""


def listed() -> set[str]:
    table = README.partition("<!-- differences -->")[2].partition("\n\n")[0]
    first_columns = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for column in first_columns for name in re.findall(r"`([^`]+)`", column)}


def pairs() -> list[tuple[str, Any, Any]]:
    """Every public name of the sampling surface, with ours and theirs."""
    from tinker.lib import api_future_impl, retry_handler, telemetry_provider

    names = [name for name in tinker.__all__ if not name.startswith("__")]
    names = [name for name in names if name not in ("types", "auth", OURS_IS_THE_CLIENT)]
    found = [(name, getattr(tinker_local, name, None), getattr(tinker, name)) for name in names]
    elsewhere = {
        "QueueState": api_future_impl,
        "QueueStateObserver": api_future_impl,
        "RetryConfig": retry_handler,
        "TelemetryProvider": telemetry_provider,
    }
    found += [(name, getattr(tinker_local, name), vars(module)[name]) for name, module in elsewhere.items()]
    found += [("TopkLogprobs", types.topk_logprobs.TopkLogprobs, tinker.types.topk_logprobs.TopkLogprobs)]
    in_types = [name for name in vars(tinker.types) if name[0].isupper() and name not in names]
    return found + [(name, getattr(types, name, None), vars(tinker.types)[name]) for name in in_types]


def test_the_surface_is_the_official_one() -> None:
    found: dict[str, str] = {}
    for name, ours, theirs in pairs():
        assert ours is not None, f"{name} is missing"
        found |= differences(name, ours, theirs)
    found = {where: how for where, how in found.items() if not where.startswith(INTERNAL)}
    assert set(found) == listed(), found
    assert len(found) < 12


def test_all_of_a_client_is_compared() -> None:
    """What the test above would not notice: that the walk finds nothing."""
    sampling = {"sample", "compute_logprobs", "get_sampler_handle", "from_sampler_handle", "get_telemetry"}
    assert sampling <= set(public(tinker.SamplingClient))
    assert len(pairs()) > 150

    class Other(tinker_local.SamplingClient):
        def sample(self, prompt: types.ModelInput, num_samples: int = 1) -> int:  # type: ignore[override]
            return 1

    where = {key for key, _ in differences("Other", Other, tinker.SamplingClient)}
    assert {"Other.sample.num_samples", "Other.sample.sampling_params", "Other.sample ->"} <= where


def test_errors_take_the_official_arguments() -> None:
    import httpx

    request = httpx.Request("GET", "http://localhost")
    response = httpx.Response(400, request=request)
    for name in tinker_local.errors.__all__:
        if not hasattr(tinker, name):
            continue
        ours, theirs = getattr(tinker_local, name), getattr(tinker, name)
        if issubclass(theirs, tinker.APIStatusError):
            arguments: dict[str, Any] = {"message": "m", "response": response, "body": {"a": 1}}
        elif issubclass(theirs, tinker.APIResponseValidationError):
            arguments = {"message": "m", "response": response, "body": None}
        elif theirs is tinker.APITimeoutError:
            arguments = {"request": request}
        elif issubclass(theirs, tinker.APIConnectionError):
            arguments = {"message": "m", "request": request}
        elif issubclass(theirs, tinker.APIError):
            arguments = {"message": "m", "request": request, "body": None}
        elif issubclass(theirs, tinker.RequestFailedError):
            category = tinker.types.RequestErrorCategory.Server
            arguments = {"message": "m", "request_id": "r", "category": category}
        else:
            continue
        one, other = ours(**arguments), theirs(**arguments)
        for attribute, value in vars(other).items():
            assert getattr(one, attribute) == value, (name, attribute)


def test_official_objects_are_accepted(client: SamplingClient) -> None:
    prompt: Any = tinker.types.ModelInput.from_ints([504, 3575, 282, 4649, 314])
    params: Any = tinker.types.SamplingParams(max_tokens=4, temperature=0, stop=["no such text"])
    target: Any = tinker.types.TensorData.from_numpy(np.array([[-1, -1], [5, -1], [-1, -1], [7, 8]]))
    sparse: Any = tinker.types.TensorData(
        data=[5, 7, 8],
        dtype="int64",
        shape=[4, 2],
        sparse_crow_indices=[0, 0, 1, 1, 3],
        sparse_col_indices=[0, 0, 1],
    )
    ours = types.SamplingParams(max_tokens=4, temperature=0)
    own_prompt = types.ModelInput.from_ints(prompt.to_ints())
    expected = client.sample(own_prompt, 1, ours).result()
    for about in (target, sparse):
        answer = client.sample(prompt, 1, params, target_prompt_logprobs=about).result()
        assert answer.sequences[0].tokens == expected.sequences[0].tokens
        own = types.TensorData.from_numpy(target.to_numpy())
        wanted = client.sample(own_prompt, 1, ours, target_prompt_logprobs=own).result()
        assert answer.target_prompt_logprobs is not None
        assert wanted.target_prompt_logprobs is not None
        found = answer.target_prompt_logprobs.to_numpy()
        assert np.abs(found - wanted.target_prompt_logprobs.to_numpy()).max() < 0.2
        assert (found != 0).sum() == 3
    assert len(client.compute_logprobs(prompt).result()) == 5
    mixed = types.ModelInput(chunks=[*prompt.chunks, types.EncodedTextChunk(tokens=[1])])
    assert mixed.append(prompt.chunks[0]).to_ints() == [*prompt.to_ints(), 1, *prompt.to_ints()]


@pytest.mark.parametrize("expected", [None, 3])
def test_images_are_those_of_the_sdk(client: SamplingClient, expected: int | None) -> None:
    theirs: list[Any] = [
        tinker.types.ImageChunk(data=b"x", format="png", expected_tokens=expected),
        tinker.types.ImageAssetPointerChunk(location="a.jpg", format="jpeg", expected_tokens=expected),
    ]
    prompt: Any = tinker.types.ModelInput.from_ints([1]).append(theirs[0]).append(theirs[1])
    ours = types.ModelInput(chunks=prompt.chunks)
    assert [type(chunk).__name__ for chunk in ours.chunks] == [type(c).__name__ for c in prompt.chunks]
    assert json.loads(ours.model_dump_json()) == json.loads(prompt.model_dump_json())
    assert types.ModelInput.model_validate_json(prompt.model_dump_json()) == ours
    for each in (prompt, ours, *prompt.chunks[1:], *ours.chunks[1:]):
        if expected is None:
            with pytest.raises(ValueError, match="expected_tokens"):
                each.length  # noqa: B018
        else:
            assert each.length == (7 if hasattr(each, "chunks") else 3)
    for each in (prompt, ours):
        with pytest.raises(ValueError, match="to_ints"):
            each.to_ints()
    with pytest.raises(tinker_local.BadRequestError, match="reads no images"):
        client.compute_logprobs(prompt)


def test_answers_have_the_official_attributes_and_types(client: SamplingClient) -> None:
    prompt = types.ModelInput.from_ints([504, 3575, 282])
    answer = client.sample(
        prompt,
        2,
        types.SamplingParams(max_tokens=3),
        True,
        2,
        3,
        types.TensorData([5, -1], "int64", [2, 1]),
        2,
    ).result()
    for ours, theirs in (
        (answer, tinker.types.SampleResponse),
        (answer.sequences[0], tinker.types.SampledSequence),
        (answer.prompt_alt_tokens, tinker.types.PromptAltTokens),
        (answer.target_prompt_logprobs, tinker.types.TensorData),
        (answer.topk_prompt_logprobs_np, tinker.types.topk_logprobs.TopkLogprobs),
    ):
        for field in dataclasses.fields(theirs):
            assert hasattr(ours, field.name)
        for key in public(theirs):
            assert hasattr(ours, key)
    again = tinker.types.SampleResponse(
        [
            tinker.types.SampledSequence(
                s.stop_reason, s.sequence_id, s.tokens_np, s.logprobs_np, s.topk_logprobs_np
            )
            for s in answer.sequences
        ],
        answer.prompt_logprobs_np,
        answer.topk_prompt_logprobs_np,
    )
    assert again.prompt_logprobs == answer.prompt_logprobs
    assert again.topk_prompt_logprobs == answer.topk_prompt_logprobs
    for one, other in zip(again.sequences, answer.sequences, strict=True):
        assert (one.tokens, one.logprobs, one.topk_logprobs) == (
            other.tokens,
            other.logprobs,
            other.topk_logprobs,
        )
