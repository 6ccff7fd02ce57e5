"""Local counters of a client and its service."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.random_model import write_random_model
from tinker_local import ModelInput, RetryConfig, SamplingParams, ServiceClient, TelemetryProvider

PARAMS = SamplingParams(max_tokens=4, seed=1, stop=[])
PROMPT = ModelInput.from_ints(list(range(40)))


@pytest.mark.parametrize("retry_config", [None, RetryConfig(max_connections=1)], ids=["plain", "retried"])
def test_counters(tmp_path: Path, retry_config: RetryConfig | None) -> None:
    path = write_random_model(tmp_path / "tiny.gguf")
    with ServiceClient(n_ctx=512) as service:
        client = service.create_sampling_client(None, str(path), retry_config)
        other = service.create_sampling_client(base_model=str(path))
        assert isinstance(client, TelemetryProvider)
        start = time.monotonic()
        client.sample(PROMPT, 3, PARAMS).result(60)
        client.sample(PROMPT, 2, PARAMS).result(60)
        client.compute_logprobs(PROMPT).result(60)
        longest = time.monotonic() - start
        other.sample(PROMPT, 1, PARAMS).result(60)
        counted = client.get_telemetry().counters
        assert (counted.requests, counted.failed, counted.cancelled) == (3, 0, 0)
        assert (counted.tokens_in, counted.tokens_out) == (3 * 40, 5 * 4)
        assert counted.cache_hit_tokens >= 39
        assert 0 <= counted.queue_wait_seconds <= counted.time_to_first_token_seconds <= longest
        assert counted.tokens_per_second == pytest.approx(20 / counted.busy_seconds)
        assert service.get_telemetry().counters.requests == 4
        assert service.get_telemetry().counters.tokens_out == 24
        assert "requests=3" in repr(client.get_telemetry())


def test_what_did_not_end_well(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "tiny.gguf")
    service = ServiceClient(n_ctx=2048)
    client = service.create_sampling_client(base_model=str(path))
    endless = SamplingParams(max_tokens=1900, stop=[])
    cancelled, failed = client.sample(PROMPT, 1, endless), client.sample(PROMPT, 1, endless)
    assert cancelled.cancel()
    service.close()
    assert failed.exception(timeout=60) is not None
    counted = client.get_telemetry().counters
    assert (counted.requests, counted.finished, counted.failed, counted.cancelled) == (2, 0, 1, 1)
    assert counted.tokens_per_second == 0
