"""min_p, biases and penalties: log-probabilities are those of the distribution that results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.random_model import write_random_model
from tinker_local import (
    BadRequestError,
    ModelInput,
    SampledSequence,
    SampledToken,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)
from tinker_local.engine.logit_rule import LogitRule, SampleEdits, edits_of
from tinker_local.kernels import reference

N_VOCAB = 400
RULES: dict[str, Any] = {
    "min_p": 0.03,
    "logit_bias": {65: 3.0, 66: -100.0, 70: 1.5},
    "presence_penalty": 0.75,
    "frequency_penalty": 0.5,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module")
def client(path: Path) -> Iterator[SamplingClient]:
    with ServiceClient(n_ctx=512, kv_type="f32", flash_attn=False, n_threads=1) as service:
        yield service.create_sampling_client(base_model=str(path))


def params(**given: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 40, "temperature": 0.8, "seed": 3, "stop": [], **RULES, **given})


def prompt(n: int) -> ModelInput:
    return ModelInput.from_ints((np.arange(n) * 7 % 250).tolist())


def expected(sequence: SampledSequence, params: SamplingParams) -> list[float]:
    """Recompute a sequence's log-probabilities from the plain model's, of the whole vocabulary."""
    assert sequence.topk_logprobs is not None
    counts, found = Counter[int](), []
    for token, top in zip(sequence.tokens, sequence.topk_logprobs, strict=True):
        row = np.empty(N_VOCAB)
        assert top is not None
        for one, logprob in top:
            row[one] = logprob + (params.logit_bias or {}).get(one, 0.0)
            row[one] -= params.presence_penalty * (counts[one] > 0) + params.frequency_penalty * counts[one]
        settings = params.temperature or 1.0, params.top_k, params.top_p, params.min_p
        found.append(float(np.log(reference.truncated(row, *settings)[token])))
        counts[token] += 1
    return found


@pytest.mark.parametrize("given", [{}, {"top_k": 30, "top_p": 0.9}, {"temperature": 0, "min_p": 0}])
def test_logprobs_are_those_of_the_changed_distribution(client: SamplingClient, given: Any) -> None:
    asked = params(**given)
    response = client.sample(prompt(9), 3, asked, topk_sample_logprobs=N_VOCAB).result(60)
    for sequence in response.sequences:
        assert 66 not in sequence.tokens
        assert sequence.logprobs == pytest.approx(expected(sequence, asked), abs=1e-4)
    assert response.sequences[0].tokens[0] == 65 or given.get("temperature") != 0


def test_preempted_samples_keep_counts_of_their_own(client: SamplingClient) -> None:
    scheduler = client._engine._loop._scheduler
    preempt, preempted = scheduler._preempt_youngest, []

    def count(*arguments: Any) -> bool:
        preempted.append(preempt(*arguments))
        return preempted[-1]

    scheduler._preempt_youngest = count  # type: ignore[method-assign]
    asked = params(max_tokens=180)  # three times that, and the prompt, are more than 512 cells
    response = client.sample(prompt(20), 3, asked, topk_sample_logprobs=N_VOCAB).result(120)
    for sequence in response.sequences:
        assert sequence.logprobs == pytest.approx(expected(sequence, asked), abs=1e-4)
    assert any(preempted)


def test_a_sample_does_not_depend_on_what_else_runs(client: SamplingClient) -> None:
    alone = client.sample(prompt(9), 2, params()).result(60).sequences
    futures = [client.sample(prompt(9), 2, params(**given)) for given in ({}, {"min_p": 0}, {"seed": 5})]
    plain = SamplingParams(max_tokens=40, seed=3)
    futures.append(client.sample(prompt(9), 2, plain))
    together = futures[0].result(60).sequences
    assert [s.tokens for s in together] == [s.tokens for s in alone]
    for one, other in zip(alone, together, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_raw_logprobs_stay_the_plain_models(path: Path) -> None:
    with ServiceClient(n_ctx=128, n_threads=1, logprobs_mode="raw") as service:
        raw = service.create_sampling_client(base_model=str(path))
        (sequence,) = raw.sample(prompt(5), 1, params(), topk_sample_logprobs=N_VOCAB).result(60).sequences
        (plain,) = raw.sample(prompt(5), 1, params(logit_bias=None, max_tokens=1)).result(60).sequences
    tops = [dict(top) for top in sequence.topk_logprobs or [] if top]
    found = [top[token] for top, token in zip(tops, sequence.tokens, strict=True)]
    assert sequence.logprobs == found
    assert plain.logprobs is not None


def test_a_repetition_penalty_counts_the_prompt_too(client: SamplingClient) -> None:
    asked = SamplingParams(max_tokens=60, temperature=0, stop=[], repetition_penalty=100)
    (sequence,) = client.sample(prompt(30), 1, asked).result(60).sequences
    seen = set(prompt(30).to_ints())
    assert len({*sequence.tokens}) == 60
    assert not seen & {*sequence.tokens}


def test_edits_of_a_sample() -> None:
    rule = LogitRule.of(np.array([5, 3, 5], np.int32), {3: 2.0, 9: -1.0}, 0.5, 0.25, 1.5)
    edits = SampleEdits(rule)
    for token in (9, 4, 9):
        edits.notice(token)
    found = edits_of([None, edits, None])
    assert found.indptr.tolist() == [0, 0, 5, 5]
    rows = zip(*(column.tolist() for column in found[1:]), strict=True)
    assert list(rows) == [
        (3, 2.0, 1.5, 0.0),
        (5, 0.0, 1.5, 0.0),
        (9, -1.0, 1.0, 0.0),  # which the next one replaces
        (9, -1.0, 1.5, 1.0),
        (4, 0.0, 1.5, 0.75),
    ]
    assert not LogitRule.of(np.zeros(1, np.int32), {3: 2.0}, 0.0, 0.0, 1.0).is_of_drawn


def test_tokens_come_with_their_logprobs(client: SamplingClient) -> None:
    told: list[SampledToken] = []
    future = client.sample(
        prompt(4), 1, params(), topk_sample_logprobs=2, on_token=lambda _, token: told.append(token)
    )
    (sequence,) = future.result(60).sequences
    assert told == sequence.tokens
    assert [token.logprob for token in told] == sequence.logprobs
    assert [token.topk_logprobs for token in told] == sequence.topk_logprobs


def test_neutral_values_take_the_usual_path(client: SamplingClient) -> None:
    neutral = params(
        min_p=0, logit_bias={}, presence_penalty=0.0, frequency_penalty=0, repetition_penalty=1
    )
    tinkers = SimpleNamespace(max_tokens=40, temperature=0.8, seed=3, stop=[], top_k=-1, top_p=1)
    answers = [client.sample(prompt(9), 1, asked).result(60).sequences[0] for asked in (neutral, tinkers)]  # type: ignore[arg-type]
    assert answers[0].tokens == answers[1].tokens
    assert answers[0].logprobs == pytest.approx(answers[1].logprobs, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"min_p": 1.5}, "min_p is 1.5; it must be from 0 to 1"),
        ({"min_p": float("nan")}, "min_p is nan"),
        ({"min_p": None}, "min_p is None; it must be a number"),
        ({"presence_penalty": 2.5}, "presence_penalty is 2.5; it must be from -2 to 2"),
        ({"frequency_penalty": "x"}, "frequency_penalty is 'x'"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; it must be from 0.01 to 100"),
        ({"logit_bias": [1]}, r"logit_bias is \[1\]; it must be a dict"),
        ({"logit_bias": {400: 1}}, "an id in logit_bias is 400; the vocabulary has ids 0 to 399"),
        ({"logit_bias": {"5x": 1}}, "an id in logit_bias is '5x'"),
        ({"logit_bias": {"9" * 9: 1}}, "an id in logit_bias is 999999999"),
        ({"logit_bias": {5: -20_000}}, r"logit_bias\[5\] is -20000; it must be from -10000 to 10000"),
        ({"logit_bias": {5: float("-inf")}}, r"logit_bias\[5\] is -inf"),
    ],
)
def test_bad_values(client: SamplingClient, given: Any, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        client.sample(prompt(3), 1, params(**given))


def test_a_stop_may_have_texts_and_ids(client: SamplingClient) -> None:
    asked = SamplingParams(max_tokens=50, temperature=0, logit_bias={"65": 50}, stop=["\0", 65])
    (sequence,) = client.sample(prompt(3), 1, asked).result(60).sequences
    assert (sequence.tokens, sequence.stop_reason) == ([65], "stop")
