"""A server in this process, with a tiny random model and an adapter of it in its store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.random_model import Shape, write_random_model
from tests.serve.caller import Caller
from tinker_local import SamplingClient, ServiceClient
from tinker_local.serve import app

TINY = "Me/Tiny"


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("store")
    (directory / "Me").mkdir()
    write_random_model(directory / "Me" / "Tiny-F32.gguf", shape=Shape(n_layer=2))
    return directory


@pytest.fixture(scope="session")
def tiny_service(models_dir: Path) -> Iterator[ServiceClient]:
    with ServiceClient(models_dir=models_dir, n_ctx=512, prefix_cache=False) as service:
        yield service


@pytest.fixture(scope="session")
def tiny_client(tiny_service: ServiceClient) -> SamplingClient:
    return tiny_service.create_sampling_client(base_model=TINY)


@pytest.fixture(scope="session")
def caller(tiny_service: ServiceClient) -> Iterator[Caller]:
    with Caller(app(tiny_service)) as caller:
        yield caller
