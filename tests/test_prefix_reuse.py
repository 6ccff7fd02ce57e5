"""The prefix cache as users see it: what is computed once, and that the numbers stay."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gate import Gate
from tests.long import as_long, few
from tests.random_checkpoints.planned import write_planned
from tests.random_model import Shape, write_random_model
from tinker_local import ModelInput, SampleResponse, SamplingClient, SamplingParams, ServiceClient

RNG = np.random.default_rng(0)
SHAPE = Shape(n_layer=2)
TEXT: list[int] = RNG.integers(0, 256, 1500).tolist()
PLANNED = ("lfm2, experts", "kimi_linear, published names")  # short convolutions, delta nets
SPARSE = ("glm5_next, with vision", "deepseek4, each kind of layer")  # hybrid, and choose their keys
GREEDY = SamplingParams(max_tokens=20, temperature=0, stop=[])


class Counted:
    """A client on a tiny model, and how many tokens llama.cpp has been given."""

    def __init__(self, path: Path, n_ctx: int = 2048) -> None:
        service = ServiceClient(n_ctx=n_ctx, kv_type="f32", flash_attn=False, n_threads=1)
        self.client: SamplingClient = service.create_sampling_client(base_model=str(path))
        self.n_tokens = 0
        self._gate = Gate()
        context = self.client._engine._loop._context
        decode = context.decode

        def count(n_tokens: int) -> None:
            self._gate.pass_through()
            self.n_tokens += n_tokens
            decode(n_tokens)

        context.decode = count  # type: ignore[method-assign]

    def held(self) -> AbstractContextManager[None]:
        """What is submitted inside has all arrived before any of it is computed."""
        return self._gate.closed(lambda: self.client.sample(prompt(TEXT[1000:1100]), 1, GREEDY))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", shape=SHAPE)


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
    assert (first.prompt_cache_hit_tokens, again.prompt_cache_hit_tokens) == (0, 200)
    assert counted.n_tokens == before + 3 * 19, "the row of logits after the prompt was kept"
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
    assert scores == again


def score(client: SamplingClient, tokens: list[int], topk: int) -> SampleResponse:
    params = SamplingParams(max_tokens=0)
    future = client.sample(
        prompt(tokens), 1, params, include_prompt_logprobs=True, topk_prompt_logprobs=topk
    )
    return future.result()


def test_alternatives_are_kept_with_the_scores(counted: Counted) -> None:
    first = score(counted.client, TEXT[:100], 5)
    before = counted.n_tokens
    again = score(counted.client, TEXT[:100], 3)
    assert (counted.n_tokens, again.prompt_cache_hit_tokens) == (before, 100)
    assert again.prompt_logprobs == first.prompt_logprobs
    assert first.topk_prompt_logprobs is not None
    assert again.topk_prompt_logprobs is not None
    pairs = list(zip(first.topk_prompt_logprobs, again.topk_prompt_logprobs, strict=True))
    assert all(five is not None and three == five[:3] for five, three in pairs[1:])
    assert score(counted.client, TEXT[:100], 6).prompt_cache_hit_tokens == 0, "six were not asked for"


def test_what_a_user_does_to_a_response_stays_there(counted: Counted) -> None:
    first = score(counted.client, TEXT[:100], 2)
    expected = first.prompt_logprobs
    assert first.prompt_logprobs_np is not None
    first.prompt_logprobs_np[:] = 0
    assert score(counted.client, TEXT[:100], 2).prompt_logprobs == expected


def test_a_score_that_shares_little_is_that_of_a_fresh_client(
    counted: Counted, fresh: SamplingClient
) -> None:
    counted.client.compute_logprobs(prompt(TEXT[:200])).result()
    counted.client.sample(prompt(TEXT[300:500]), 3, GREEDY).result()
    tokens = prompt(TEXT[:90], TEXT[500:800])
    assert counted.client.compute_logprobs(tokens).result() == fresh.compute_logprobs(tokens).result()


@pytest.mark.parametrize("architecture", ["mamba", "jamba", *PLANNED, *map(as_long, SPARSE)])
class TestStates:
    """Recurrent states cannot step back; a copy is kept where requests part."""

    @pytest.fixture
    def path(self, architecture: Any, tmp_path: Path) -> Path:
        if architecture in PLANNED + SPARSE:
            return write_planned(tmp_path / "tiny.gguf", architecture)
        return write_random_model(tmp_path / "tiny.gguf", architecture, SHAPE)

    def test_requests_that_arrive_together(self, counted: Counted, fresh: SamplingClient) -> None:
        prompts = [prompt(TEXT[:1000], [n, 7, 8, n]) for n in range(6)]
        with counted.held():
            futures = [counted.client.sample(p, 2, GREEDY) for p in prompts]
        responses = [future.result() for future in futures]
        assert sum(response.prompt_cache_hit_tokens == 1000 for response in responses) >= 4
        for p, response in zip(prompts, responses, strict=True):
            expected = fresh.sample(p, 1, GREEDY).result().sequences[0]
            assert response.sequences[1].logprobs == pytest.approx(expected.logprobs, abs=1e-2)

    def test_scores_of_a_shared_context(self, counted: Counted, fresh: SamplingClient) -> None:
        prompts = [prompt(TEXT[:500], [n, 7, 8, n]) for n in range(6)]
        with counted.held():
            futures = [counted.client.compute_logprobs(p) for p in prompts]
        scores = [future.result() for future in futures]
        assert counted.n_tokens < 3 * 504 + 200
        for p, score in zip(prompts, scores, strict=True):
            expected = fresh.compute_logprobs(p).result()
            assert np.allclose(np.array(score[1:]), np.array(expected[1:]), atol=1e-2)

    def test_a_turn_starts_where_the_last_ended(self, counted: Counted) -> None:
        reply = counted.client.sample(prompt(TEXT[:300]), 1, GREEDY).result().sequences[0].tokens
        response = counted.client.sample(prompt(TEXT[:300], reply, [1, 2, 3]), 1, GREEDY).result()
        assert response.prompt_cache_hit_tokens == 300 + len(reply) - 1

    def test_the_same_prompt_again(self, counted: Counted) -> None:
        first, again = (counted.client.sample(prompt(TEXT[:300]), 2, GREEDY).result() for _ in range(2))
        assert again.prompt_cache_hit_tokens == 300
        assert [s.tokens for s in again.sequences] == [s.tokens for s in first.sequences]


def test_a_full_cache_makes_room(path: Path, fresh: SamplingClient) -> None:
    """Five times the cache's cells, with every prompt seen twice."""
    counted = Counted(path, n_ctx=512)
    for start in [0, 60, 120, 180, 240] * 2:
        tokens = TEXT[start : start + 240]
        response = counted.client.sample(prompt(tokens), 2, GREEDY).result()
        expected = fresh.sample(prompt(tokens), 1, GREEDY).result().sequences[0]
        assert response.sequences[0].tokens == expected.tokens
        assert response.sequences[0].logprobs == pytest.approx(expected.logprobs, abs=1e-3)


def test_can_be_switched_off(path: Path) -> None:
    client = ServiceClient(n_ctx=2048, prefix_cache=False).create_sampling_client(base_model=str(path))
    for _ in range(2):
        assert client.sample(prompt(TEXT[:200]), 2, GREEDY).result().prompt_cache_hit_tokens == 0


@pytest.mark.parametrize("n_rounds", few(1, [5, 12]))
def test_behind_a_sliding_window(n_rounds: int, tmp_path: Path) -> None:
    """llama.cpp overwrites what no longer matters to a sequence, and would to one that starts within it."""
    path = str(write_random_model(tmp_path / "gemma3.gguf", "gemma3"))
    options: dict[str, Any] = {"n_ctx": 384, "kv_type": "f32", "flash_attn": False, "n_threads": 1}
    client = ServiceClient(**options).create_sampling_client(base_model=path)
    alone = ServiceClient(**options, prefix_cache=False).create_sampling_client(base_model=path)
    rng, n_hits = random.Random(0), 0
    for number in range(n_rounds):
        prompts = [_one_of_four(rng) for _ in range(6)]
        params = [
            SamplingParams(max_tokens=rng.choice((1, 30, 100)), seed=number * 10 + i, stop=[])
            for i in range(6)
        ]
        futures = [
            client.sample(prompt(tokens), rng.choice((1, 2, 5)), how)
            for tokens, how in zip(prompts, params, strict=True)
        ]
        for tokens, future in zip(prompts, futures, strict=True):
            response = future.result()
            n_hits += response.prompt_cache_hit_tokens > 0
            for sequence in response.sequences[:2]:
                scores = alone.compute_logprobs(prompt(tokens + sequence.tokens)).result()[len(tokens) :]
                assert np.abs(np.subtract(scores, sequence.logprobs)).max() < 5e-3  # GELU is a table
    assert n_hits > n_rounds * 20 // 36


def _one_of_four(rng: random.Random) -> list[int]:
    """A prompt that goes on from some of one of four texts."""
    start = random.Random(rng.randrange(4))
    text = [start.randrange(256) for _ in range(start.randint(60, 150))]
    return text[: rng.randint(30, 150)] + [rng.randrange(256) for _ in range(rng.randint(1, 60))]
