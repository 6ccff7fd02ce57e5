"""What RestClient and ServiceClient say is on this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from convert.files.models_directory import CHECKPOINT_FILE
from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local import NotFoundError, ServiceClient


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "org").mkdir()
    adapter = random_adapter(write_random_model(tmp_path / "org" / "tiny-f32.gguf"), rank=3)
    names = {"general__base_model__0__name": "tiny", "general__base_model__0__organization": "org"}
    adapter.write(tmp_path / "old-lora.gguf", **names)
    os.utime(tmp_path / "old-lora.gguf", (1e9, 1e9))
    checkpoint = tmp_path / "tinker" / "run-1" / "sampler_weights" / "0007"
    checkpoint.mkdir(parents=True)
    adapter.write(checkpoint / CHECKPOINT_FILE, **names)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(20))
    return tmp_path


def test_models(store: Path) -> None:
    service = ServiceClient(models_dir=store)
    capabilities = service.get_server_capabilities()
    known = {model.model_name: model for model in capabilities.supported_models}
    assert known["org/tiny-f32"].max_context_length == 2048
    assert known["org/tiny-f32"].sampleable
    assert not known["org/tiny-f32"].trainable
    assert not {"old-lora", "broken"} & set(known)
    assert asyncio.run(service.get_server_capabilities_async()) == capabilities


def test_checkpoints(store: Path) -> None:
    rest = ServiceClient(models_dir=store).create_rest_client()
    found = rest.list_user_checkpoints().result()
    assert [one.tinker_path for one in found.checkpoints] == [
        "tinker://run-1/sampler_weights/0007",
        str(store / "old-lora.gguf"),
    ]
    assert found.checkpoints[0].checkpoint_id == "sampler_weights/0007"
    assert found.checkpoints[1].time.year == 2001
    assert {one.checkpoint_type for one in found.checkpoints} == {"sampler"}
    part = asyncio.run(rest.list_user_checkpoints_async(limit=1, offset=1))
    assert part.checkpoints == found.checkpoints[1:]
    assert part.cursor is not None
    assert part.cursor.total_count == 2
    assert rest.list_checkpoints("run-1").result().checkpoints == found.checkpoints[:1]
    assert rest.list_checkpoints("run").result().checkpoints == []
    for one in found.checkpoints:
        info = rest.get_weights_info_by_tinker_path(one.tinker_path).result()
        assert (info.base_model, info.is_lora, info.lora_rank) == ("org/tiny", True, 3)
    with pytest.raises(NotFoundError, match="run-1/sampler_weights/0007"):
        rest.get_weights_info_by_tinker_path("tinker://run-2/sampler_weights/0007")


def test_what_is_listed_opens(store: Path) -> None:
    with ServiceClient(models_dir=store, n_ctx=256) as service:
        for one in service.create_rest_client().list_user_checkpoints().result().checkpoints:
            assert service.create_sampling_client(one.tinker_path)
        for model in service.get_server_capabilities().supported_models:
            if model.model_name == "org/tiny-f32":
                client = service.create_sampling_client(base_model=model.model_name)
                assert client.get_base_model() == "org/tiny-f32"
