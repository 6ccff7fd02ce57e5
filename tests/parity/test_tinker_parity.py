"""Names, argument order and defaults against the official package, and its objects as our input."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import tinker_local
from tinker_local import SamplingClient, ServiceClient, types

pytestmark = pytest.mark.parity

tinker = pytest.importorskip("tinker")


@pytest.mark.parametrize("name", ["sample", "sample_async", "compute_logprobs", "compute_logprobs_async"])
def test_arguments_begin_as_the_official_ones(name: str) -> None:
    ours = list(inspect.signature(getattr(SamplingClient, name)).parameters.values())
    theirs = list(inspect.signature(getattr(tinker.SamplingClient, name)).parameters.values())
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs[: len(ours)]]


@pytest.mark.parametrize("name", ["create_sampling_client", "create_sampling_client_async"])
def test_opening_takes_the_official_arguments(name: str) -> None:
    """In their places; what we add besides (``lora_scale``) can only be given by name."""
    ours = list(inspect.signature(getattr(ServiceClient, name)).parameters.values())
    theirs = list(inspect.signature(getattr(tinker.ServiceClient, name)).parameters.values())
    own = {"lora_scale"}
    assert {p.name for p in ours if p.kind is p.KEYWORD_ONLY} == own
    shared = [p for p in ours if p.name not in own]
    assert [(p.name, p.default) for p in shared] == [(p.name, p.default) for p in theirs[: len(shared)]]
    assert not own & {p.name for p in theirs}


@pytest.mark.parametrize("name", ["ModelInput", "SamplingParams", "EncodedTextChunk"])
def test_request_fields(name: str) -> None:
    ours, theirs = getattr(types, name).model_fields, getattr(tinker.types, name).model_fields
    assert list(ours) == list(theirs)
    assert [f.default for f in ours.values()] == [f.default for f in theirs.values()]


@pytest.mark.parametrize("name", ["TinkerError", "APIError", "BadRequestError", "NotFoundError"])
def test_error_hierarchy(name: str) -> None:
    ours, theirs = getattr(tinker_local, name), getattr(tinker, name)
    assert {c.__name__ for c in ours.__mro__} <= {c.__name__ for c in theirs.__mro__}
    assert getattr(ours, "status_code", None) == getattr(theirs, "status_code", None)


def test_official_objects_are_accepted(client: SamplingClient) -> None:
    prompt: Any = tinker.types.ModelInput.from_ints([504, 3575, 282, 4649, 314])
    params: Any = tinker.types.SamplingParams(max_tokens=4, temperature=0, stop=["no such text"])
    ours = types.SamplingParams(max_tokens=4, temperature=0)
    answer = client.sample(prompt, 1, params).result()
    expected = client.sample(types.ModelInput.from_ints(prompt.to_ints()), 1, ours).result()
    assert answer.sequences[0].tokens == expected.sequences[0].tokens
    assert len(client.compute_logprobs(prompt).result()) == 5
