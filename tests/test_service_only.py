"""What belongs to Tinker's service can be imported, and says so when it is used; errors are the SDK's."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

import tinker_local
from tinker_local import ServiceClient, ServiceOnlyError, TinkerError, errors, types


@pytest.mark.parametrize("name", ["TrainingClient", "AdminClient", "Datum", "AdamParams", "DmelChunk"])
def test_stand_ins(name: str) -> None:
    stand_in: Any = getattr(tinker_local, name)
    assert isinstance(stand_in, type), "so that annotations and isinstance work"
    assert not isinstance(3, stand_in)
    assert getattr(tinker_local, name) is stand_in
    with pytest.raises(ServiceOnlyError, match=f"^{name} belongs to Tinker's service"):
        stand_in(learning_rate=1e-4)


def test_one_stand_in_in_both_places() -> None:
    from tinker_local.types import Datum  # type: ignore[attr-defined]

    assert Datum is tinker_local.Datum  # type: ignore[attr-defined]


def test_no_stand_in_for_what_nobody_has() -> None:
    for module in (tinker_local, types):
        with pytest.raises(AttributeError, match="Datumm"):
            module.Datumm  # noqa: B018


@pytest.mark.parametrize(
    "name", ["create_lora_training_client", "create_training_client_from_state", "create_custom_loss"]
)
def test_training(service: ServiceClient, name: str) -> None:
    with pytest.raises(ServiceOnlyError, match=f"ServiceClient.{name} belongs"):
        getattr(service, name)(base_model="Qwen/Qwen3-8B", rank=32)


def test_rest(service: ServiceClient) -> None:
    rest = service.create_rest_client()
    for name in (
        "publish_checkpoint_from_tinker_path",
        "get_billing_usage",
        "whoami",
        "list_sessions_async",
    ):
        with pytest.raises(ServiceOnlyError, match=name):
            getattr(rest, name)()
    with pytest.raises(AttributeError, match="wohami"):
        rest.wohami  # noqa: B018


def test_stability_information(service: ServiceClient) -> None:
    with pytest.raises(ServiceOnlyError, match="record_stability_info"):
        service.create_sampling_client(base_model="SmolLM2-135M-Instruct", record_stability_info=True)


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_travel_between_processes(name: str) -> None:
    error = (
        getattr(errors, name)() if name == "APITimeoutError" else getattr(errors, name)("what was wrong")
    )
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert isinstance(error, TinkerError)


def test_a_client_is_a_future_of_itself(client: tinker_local.SamplingClient) -> None:
    async def wait() -> None:
        assert await client is client
        assert await client.result_async(1) is client
        assert await asyncio.create_task(client.coroutine()) is client

    asyncio.run(wait())
    assert client.result(timeout=1) is client
    assert client.future().result() is client
    assert isinstance(client, tinker_local.APIFuture)
