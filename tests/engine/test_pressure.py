"""More work than the KV cache holds: the youngest are paused, and nobody's tokens change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.long import few
from tests.random_model import ARCHITECTURES, Architecture, write_random_model
from tinker_local import ModelInput, SampledSequence, SamplingClient, SamplingParams, ServiceClient

TOLERANCE = 5e-3  # as in test_memory_kinds.py
RNG = np.random.default_rng(0)
# (prompt, samples, most tokens): together some 2,500 tokens, through 512 cells
REQUESTS = [
    (RNG.integers(0, 256, n).tolist(), samples, max_tokens)
    for n, samples, max_tokens in [(20, 3, 150), (200, 3, 160), (5, 6, 80), (300, 1, 150), (90, 2, 170)]
]


def open_client(path: Path) -> SamplingClient:
    service = ServiceClient(n_ctx=512, kv_type="f32", flash_attn=False)
    return service.create_sampling_client(base_model=str(path))


def params(max_tokens: int, temperature: float) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=7, stop=[])


class Case:
    def __init__(self, path: Path, temperature: float) -> None:
        self.busy, self.idle = open_client(path), open_client(path)
        self.temperature = temperature
        self.n_preempted = 0
        scheduler = self.busy._engine._loop._scheduler
        preempt = scheduler._preempt_youngest

        def count(*arguments: object) -> bool:
            preempted = preempt(*arguments)  # type: ignore[arg-type]
            self.n_preempted += preempted
            return preempted

        scheduler._preempt_youngest = count  # type: ignore[method-assign]

    def run_busy(self) -> list[list[SampledSequence]]:
        futures = [
            self.busy.sample(ModelInput.from_ints(tokens), n, params(max_tokens, self.temperature))
            for tokens, n, max_tokens in REQUESTS
        ]
        return [future.result().sequences for future in futures]

    def run_idle(self) -> Iterator[list[SampledSequence]]:
        for tokens, n, max_tokens in REQUESTS:
            future = self.idle.sample(ModelInput.from_ints(tokens), n, params(max_tokens, self.temperature))
            yield future.result().sequences


def n_equal(one: SampledSequence, other: SampledSequence) -> int:
    """Tokens until two samples part."""
    pairs = enumerate(zip(one.tokens, other.tokens, strict=True))
    return next((i for i, (a, b) in pairs if a != b), len(one.tokens))


@pytest.mark.parametrize(
    ("architecture", "temperature"), few(3, [*((kind, 1.0) for kind in ARCHITECTURES), ("llama", 0.0)])
)
def test_the_same_tokens_as_without_pressure(
    architecture: Architecture, temperature: float, tmp_path: Path
) -> None:
    case = Case(write_random_model(tmp_path / "tiny.gguf", architecture), temperature)
    n_tokens = n_parted = 0
    for busy, idle, (_, n, max_tokens) in zip(case.run_busy(), case.run_idle(), REQUESTS, strict=True):
        assert [len(s.tokens) for s in busy] == [max_tokens] * n
        for one, other in zip(busy, idle, strict=True):
            end = n_equal(one, other)  # float32 rounding decides a near-tie now and then
            gap = np.abs(np.array(one.logprobs[:end]) - np.array(other.logprobs[:end]))
            assert gap.max(initial=0) < TOLERANCE
            n_tokens, n_parted = n_tokens + len(one.tokens), n_parted + (end < len(one.tokens))
    assert n_parted <= 2, f"{n_parted} samples parted from those of an idle engine in {n_tokens} tokens"
    if architecture not in ("mamba", "jamba"):  # whose number of states is the tighter bound
        assert case.n_preempted > 0


def test_scores_survive_preemption(tmp_path: Path) -> None:
    """A prompt that is being scored makes way for older samples, and goes on where it was."""
    case = Case(write_random_model(tmp_path / "tiny.gguf"), 0.0)
    case.busy._engine._loop._scheduler._n_batch = 128  # so that it is prefilled in chunks
    older = case.busy.sample(ModelInput.from_ints(REQUESTS[0][0]), 3, params(150, 0.0))
    tokens = ModelInput.from_ints(RNG.integers(0, 256, 400).tolist())
    scores = case.busy.compute_logprobs(tokens).result()
    older.result()
    expected = case.idle.compute_logprobs(tokens).result()
    assert np.allclose(np.array(scores[1:]), np.array(expected[1:]), atol=TOLERANCE)
