"""Every kind of llama.cpp memory gives the numbers of a single pass: attention, sliding windows, states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.bare_loop import BareLoop, log_softmax
from tests.random_model import ARCHITECTURES, Architecture, write_random_model
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient

TOLERANCE = 5e-3  # float32 rounding through six random layers; a wrong mask or state gives 0.1 to 10
TOKENS = np.random.default_rng(0).integers(0, 400, 1100).tolist()
# (prompt tokens, samples): shorter and longer than the window, a chunk, and the sequences there are
REQUESTS = [(5, 1), (20, 3), (100, 7), (600, 2), (30, 70)]


class Case:
    def __init__(self, path: Path) -> None:
        service = ServiceClient(n_ctx=2048, kv_type="f32", flash_attn=False)
        self.client: SamplingClient = service.create_sampling_client(base_model=str(path))
        self.bare = BareLoop(path, n_ctx=2048, exact=True)

    def expected(self, tokens: list[int]) -> np.ndarray:
        logprobs = log_softmax(self.bare.prompt_logits(tokens))
        return np.asarray(logprobs[np.arange(len(tokens) - 1), tokens[1:]])


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    architecture: Architecture = request.param
    case = Case(write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", architecture))
    yield case
    case.bare.close()


def test_scores(case: Case) -> None:
    futures = [case.client.compute_logprobs(ModelInput.from_ints(TOKENS[:n])) for n in (2, 63, 64, 1100)]
    for n, future in zip((2, 63, 64, 1100), futures, strict=True):
        gap = np.abs(np.array(future.result()[1:]) - case.expected(TOKENS[:n]))
        assert gap.max() < TOLERANCE


def test_samples_that_share_a_prompt_and_batches(case: Case) -> None:
    futures = [
        case.client.sample(
            ModelInput.from_ints(TOKENS[:n]), samples, SamplingParams(max_tokens=8, stop=[], seed=n)
        )
        for n, samples in REQUESTS
    ]
    for (n, samples), future in zip(REQUESTS, futures, strict=True):
        sequences = future.result().sequences
        assert len(sequences) == samples
        for sequence in sequences[:2]:
            expected = case.expected(TOKENS[:n] + sequence.tokens)[n - 1 :]
            assert np.abs(np.array(sequence.logprobs) - expected).max() < TOLERANCE
