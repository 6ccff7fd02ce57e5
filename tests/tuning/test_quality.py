"""Quality of a type: the divergence against float64, the perplexity against the client's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.bare_loop import log_softmax
from tests.random_model import Quantization, write_random_model
from tinker_local import ModelInput, SamplingClient, ServiceClient
from tinker_local.llama.model import load_model
from tinker_local.options import Options
from tinker_local.tuning.quality import compare, kl_divergence


@pytest.mark.parametrize("distance", [1e-3, 0.1, 5.0])
def test_divergence_is_that_of_float64(distance: float) -> None:
    rng = np.random.default_rng(1)
    expected = (rng.standard_normal((7, 20_000)) * 4).astype(np.float32)
    found = (expected + distance * rng.standard_normal(expected.shape) + 3).astype(np.float32)
    p, q = log_softmax(expected), log_softmax(found)
    exact = (np.exp(p) * (p - q)).sum(axis=-1)
    assert kl_divergence(expected, found) == pytest.approx(exact, rel=1e-3, abs=1e-7)
    assert (kl_divergence(expected, expected) == 0).all()


def test_a_model_and_itself_quantized(tmp_path: Path) -> None:
    f32 = write_random_model(tmp_path / "f32.gguf")
    q8_0 = write_random_model(tmp_path / "q8_0.gguf", quantization=Quantization.Q8_0)
    reference, other = (load_model(path, -1) for path in (f32, q8_0))
    windows = [list(range(10, 250)), list(range(300, 340))]
    same = compare(reference, reference, windows, Options())
    assert (same.kl, same.kl_error, same.n_tokens) == (0, 0, 280)
    off = compare(reference, other, windows, Options())
    assert 1e-6 < off.kl < 0.01
    assert off.kl_error < off.kl
    service = ServiceClient(n_ctx=512)
    assert same.perplexity == pytest.approx(perplexity(service, f32, windows), rel=1e-3)
    assert off.perplexity == pytest.approx(perplexity(service, q8_0, windows), rel=1e-3)
    assert same.perplexity != pytest.approx(off.perplexity, rel=1e-6)


def perplexity(service: ServiceClient, path: Path, windows: list[list[int]]) -> float:
    client: SamplingClient = service.create_sampling_client(base_model=str(path))
    futures = [client.compute_logprobs(ModelInput.from_ints(window)) for window in windows]
    logprobs = [p for future in futures for p in future.result() if p is not None]
    return math.exp(-sum(logprobs) / len(logprobs))
