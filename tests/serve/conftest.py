"""A server in this process. Its store has a tiny random model, an adapter of it and a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from convert.files.models_directory import CHECKPOINT_FILE
from tests.random_adapter import random_adapter
from tests.random_model import Shape, write_random_model
from tests.serve.caller import Caller
from tinker_local import SamplingClient, ServiceClient
from tinker_local.serve import app

TINY = "Me/Tiny"
CHECKPOINT = "tinker://run-1/sampler_weights/0007"


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("store")
    checkpoint = directory / "tinker" / "run-1" / "sampler_weights" / "0007"
    for made in (directory / "Me", checkpoint):
        made.mkdir(parents=True)
    path = write_random_model(directory / "Me" / "Tiny-F32.gguf", shape=Shape(n_layer=2))
    adapter = random_adapter(path, rank=3)
    names = {"general__base_model__0__name": "Tiny", "general__base_model__0__organization": "Me"}
    adapter.write(directory / "lora.gguf", **names)
    adapter.write(checkpoint / CHECKPOINT_FILE, **names)
    return directory


@pytest.fixture(scope="session")
def tiny_service(models_dir: Path) -> Iterator[ServiceClient]:
    with ServiceClient(models_dir=models_dir, n_ctx=512, n_threads=1, prefix_cache=False) as service:
        yield service


@pytest.fixture(scope="session")
def tiny_client(tiny_service: ServiceClient) -> SamplingClient:
    return tiny_service.create_sampling_client(base_model=TINY)


@pytest.fixture(scope="session")
def caller(tiny_service: ServiceClient) -> Iterator[Caller]:
    with Caller(app(tiny_service)) as caller:
        yield caller
