"""The prefix cache as users see it: what is computed once, and that the numbers stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.random_model import write_random_model
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient

RNG = np.random.default_rng(0)
TEXT: list[int] = RNG.integers(0, 256, 1500).tolist()
GREEDY = SamplingParams(max_tokens=20, temperature=0, stop=[])


class Counted:
    """A client on a tiny model, and how many tokens llama.cpp has been given."""

    def __init__(self, path: Path) -> None:
        service = ServiceClient(n_ctx=2048, kv_type="f32", flash_attn=False, prefix_cache=True)
        self.client: SamplingClient = service.create_sampling_client(base_model=str(path))
        self.n_tokens = 0
        context = self.client._engine._loop._context
        decode = context.decode

        def count(n_tokens: int) -> None:
            self.n_tokens += n_tokens
            decode(n_tokens)

        context.decode = count  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def counted(path: Path) -> Counted:
    return Counted(path)


@pytest.fixture
def fresh(path: Path) -> SamplingClient:
    return Counted(path).client


def prompt(*parts: list[int]) -> ModelInput:
    return ModelInput.from_ints([token for part in parts for token in part])


def test_the_same_prompt_again(counted: Counted) -> None:
    first = counted.client.sample(prompt(TEXT[:200]), 1, GREEDY).result()
    before = counted.n_tokens
    again = counted.client.sample(prompt(TEXT[:200]), 3, GREEDY).result()
    assert (first.prompt_cache_hit_tokens, again.prompt_cache_hit_tokens) == (0, 199)
    assert counted.n_tokens == before + 1 + 3 * 19
    assert [s.tokens for s in again.sequences] == [first.sequences[0].tokens] * 3


def test_each_turn_pays_for_its_new_tokens_only(counted: Counted) -> None:
    history = TEXT[:300]
    for turn in range(10):
        before = counted.n_tokens
        response = counted.client.sample(prompt(history), 1, GREEDY).result()
        reply = response.sequences[0].tokens
        if turn:
            assert response.prompt_cache_hit_tokens == len(history) - 11  # all but the last turn's
            assert counted.n_tokens - before == 11 + len(reply) - 1
        history = history + reply + TEXT[turn * 10 : turn * 10 + 10]


def test_scores_of_a_shared_context_are_computed_once(counted: Counted, fresh: SamplingClient) -> None:
    context = TEXT[:1000]
    ends = [[5, 6, 7, n] for n in range(64)]
    futures = [counted.client.compute_logprobs(prompt(context, end)) for end in ends]
    scores = [future.result() for future in futures]
    assert counted.n_tokens <= 1004 + 63 * 5
    for end, score in list(zip(ends, scores, strict=True))[::16]:
        alone = fresh.compute_logprobs(prompt(context, end)).result()
        assert np.allclose(np.array(score[1:]), np.array(alone[1:]), atol=1e-3)


def test_requests_that_arrive_together_share_what_is_still_being_computed(counted: Counted) -> None:
    futures = [counted.client.sample(prompt(TEXT[:1200], [n]), 2, GREEDY) for n in range(8)]
    hits = [future.result().prompt_cache_hit_tokens for future in futures]
    assert hits == [0] + [1200] * 7
    assert counted.n_tokens == 1200 + 8 + 8 * 2 * 19


def test_scores_are_not_taken_from_prompts_that_were_not_scored(
    counted: Counted, fresh: SamplingClient
) -> None:
    counted.client.sample(prompt(TEXT[:200]), 1, GREEDY).result()
    scores = counted.client.compute_logprobs(prompt(TEXT[:220])).result()
    expected = fresh.compute_logprobs(prompt(TEXT[:220])).result()
    assert np.allclose(np.array(scores[1:]), np.array(expected[1:]), atol=1e-3)
    again = counted.client.compute_logprobs(prompt(TEXT[:220])).result()
    assert scores[:-1] == again[:-1]
    assert scores[-1] == again[-1]


def test_topk_is_always_computed(counted: Counted) -> None:
    for _ in range(2):
        response = counted.client.sample(
            prompt(TEXT[:100]), 1, GREEDY, include_prompt_logprobs=True, topk_prompt_logprobs=2
        ).result()
        assert response.topk_prompt_logprobs is not None
        assert all(entry and len(entry) == 2 for entry in response.topk_prompt_logprobs[1:])
    assert response.prompt_cache_hit_tokens == 0


def test_a_full_cache_makes_room(counted: Counted, fresh: SamplingClient) -> None:
    """Ten times the cache's cells, with every prompt seen twice."""
    starts = [0, 150, 300, 450, 600, 750, 900] * 2
    for start in starts:
        tokens = TEXT[start : start + 600]
        response = counted.client.sample(prompt(tokens), 2, GREEDY).result()
        expected = fresh.sample(prompt(tokens), 1, GREEDY).result().sequences[0]
        assert response.sequences[0].tokens == expected.tokens
        assert response.sequences[0].logprobs == pytest.approx(expected.logprobs, abs=1e-3)


def test_is_off_unless_asked_for(path: Path) -> None:
    client = ServiceClient(n_ctx=2048).create_sampling_client(base_model=str(path))
    for _ in range(2):
        assert client.sample(prompt(TEXT[:200]), 2, GREEDY).result().prompt_cache_hit_tokens == 0
