"""A server in this process, over a tiny store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.caller import Caller
from tests.serve.tiny_store import TINY, write_tiny_store
from tinker_local import SamplingClient, ServiceClient
from tinker_local.serve import app


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_store(tmp_path_factory.mktemp("store"))


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
