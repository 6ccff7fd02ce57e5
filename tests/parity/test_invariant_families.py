"""The invariant mode on tiny random models of the families that the converter knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import convert
from tests.engine.test_invariance import Asked, requests, together
from tinker_local import ModelInput, SamplingClient, ServiceClient

pytestmark = pytest.mark.parity
dense = pytest.importorskip("tests.random_checkpoints.dense")  # they need torch and transformers
experts = pytest.importorskip("tests.random_checkpoints.experts")

WRITERS: dict[str, Callable[[Path], Any]] = {
    "deepseek": experts.write_deepseek,  # latent attention
    "gpt-oss": experts.write_gptoss,  # sinks and sliding windows
    "qwen3moe": experts.write_qwen3moe,
    "gemma2": dense.write_gemma2,  # soft caps
    "gemma3": dense.write_gemma3,
    "gpt2": dense.write_gpt2,
    "phi3": dense.write_phi3,
    "olmo2": dense.write_olmo2,
    "qwen35": experts.write_qwen35,  # delta nets
}


def convert_random(name: str, outtype: str, directory: Path) -> Path:
    source = directory / "source"
    source.mkdir()
    WRITERS[name](source)
    return convert.convert_checkpoint(source, directory / f"{name}.gguf", outtype=outtype, verify=False)


@pytest.mark.filterwarnings("ignore::convert.errors.ConversionWarning")
@pytest.mark.parametrize("outtype", ["f32", "q8_0"])
@pytest.mark.parametrize("name", WRITERS)
def test_the_same_bits(name: str, outtype: str, tmp_path: Path) -> None:
    path, asked = convert_random(name, outtype, tmp_path), requests(8, 90)

    def client(**options: Any) -> SamplingClient:
        service = ServiceClient(n_ctx=128, batch_invariant=True, **options)
        return service.create_sampling_client(base_model=str(path))

    alone = client(n_threads=1, prefix_cache=False)
    expected = [request.submit(alone).result() for request in asked]
    crowded = client(n_threads=2)
    assert together(crowded, asked, 1) == [Asked.bits(response) for response in expected]
    for request, response in zip(asked, expected, strict=True):
        if (request.params.temperature, request.params.top_p) == (1.0, 1.0):
            for sequence in response.sequences:
                whole = ModelInput.from_ints([*request.prompt, *sequence.tokens])
                assert crowded.compute_logprobs(whole).result()[len(request.prompt) :] == sequence.logprobs
