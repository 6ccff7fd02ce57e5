"""Targets, alternatives, the last n and top-k of samples: against float64, alone and in one request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bare_loop import BareLoop, log_softmax
from tests.random_model import ARCHITECTURES, Architecture, Shape, write_random_model
from tinker_local import (
    BadRequestError,
    ModelInput,
    SampleResponse,
    SamplingClient,
    SamplingParams,
    ServiceClient,
    TensorData,
)
from tinker_local.kernels import reference

N, V = 90, Shape().n_vocab
TOKENS: list[int] = np.random.default_rng(5).integers(0, 256, N).tolist()
ONE = SamplingParams(max_tokens=1, seed=1)
NEAR = {"gemma3": 5e-3}  # its GELU is a table of float16s: last bits of what goes in come out as 1e-3
MODES: list[dict[str, Any]] = [{}, {"prefix_cache": False}, {"batch_invariant": True}]


def prompt(tokens: list[int]) -> ModelInput:
    return ModelInput.from_ints(tokens)


def sparse(cells: dict[tuple[int, int], int], width: int, n: int = N) -> TensorData:
    """CSR: the id of each (row, column)."""
    places = sorted(cells)
    counts = np.bincount([row for row, _ in places], minlength=n - 1)
    begins = np.concatenate([[0], np.cumsum(counts)]).tolist()
    ids = [cells[place] for place in places]
    return TensorData(ids, "int64", [n - 1, width], begins, [column for _, column in places])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def path_of(directory: Path, architecture: Architecture) -> Path:
    path = directory / f"{architecture}.gguf"
    return path if path.exists() else write_random_model(path, architecture)


def open_client(directory: Path, architecture: Architecture = "llama", **options: Any) -> SamplingClient:
    kind = {"n_ctx": 512, "kv_type": "f32", "n_threads": 2, **options}
    if not kind.get("batch_invariant"):  # which chooses how attention is computed itself
        kind["flash_attn"] = False
    return ServiceClient(**kind).create_sampling_client(base_model=str(path_of(directory, architecture)))


@pytest.fixture(scope="module")
def expected(directory: Path) -> dict[Architecture, NDArray[np.float64]]:
    """Log-probabilities of every id after each token, float64 from one bare decode."""
    found = {}
    for architecture in ARCHITECTURES:
        bare = BareLoop(path_of(directory, architecture), exact=True)
        found[architecture] = log_softmax(bare.prompt_logits(TOKENS))
        bare.close()
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("options", MODES[:2], ids=str)
def test_everything_in_one_request_and_each_alone(
    directory: Path,
    expected: dict[Architecture, NDArray[np.float64]],
    architecture: Architecture,
    options: dict[str, Any],
) -> None:
    logprobs, near = expected[architecture], NEAR.get(architecture, 2e-5)
    client = open_client(directory, architecture, **options)
    rng = np.random.default_rng(2)
    ids = rng.integers(-1, V, (N - 1, 3))
    ids[:20] = -1
    ids[25, 1] = -1
    target = TensorData.from_numpy(ids)
    params = SamplingParams(max_tokens=3, seed=8, temperature=0.7, stop=[])
    asked: dict[str, dict[str, Any]] = {
        "target": {"target_prompt_logprobs": target},
        "alternatives": {"prompt_alt_tokens_k": 4},
        "last": {"include_prompt_logprobs": True, "prompt_logprobs_last_n": 9, "topk_prompt_logprobs": 2},
        "top": {"topk_sample_logprobs": 5},
    }
    together = {name: value for one in asked.values() for name, value in one.items()}
    for about in (together, *asked.values(), together):
        response = client.sample(prompt(TOKENS), 2, params, **about).result(60)
        check_targets(response, ids if "target_prompt_logprobs" in about else None, logprobs, near)
        check_alternatives(response, "prompt_alt_tokens_k" in about, logprobs, near)
        check_last(response, "prompt_logprobs_last_n" in about, logprobs, near)
        check_top(response, "topk_sample_logprobs" in about, logprobs, near, client)


def check_targets(response: SampleResponse, ids: Any, logprobs: NDArray[np.float64], near: float) -> None:
    found = response.target_prompt_logprobs
    if ids is None:
        assert found is None
        return
    assert found is not None
    assert (found.dtype, found.shape) == ("float32", [N - 1, 3])
    wanted = np.take_along_axis(logprobs[:-1], np.maximum(ids, 0), axis=1)
    assert np.abs(found.to_numpy() - np.where(ids < 0, 0.0, wanted)).max() < near
    assert (found.to_numpy()[ids < 0] == 0).all()


def check_alternatives(
    response: SampleResponse, asked: bool, logprobs: NDArray[np.float64], near: float
) -> None:
    found = response.prompt_alt_tokens
    if not asked:
        assert found is None
        return
    assert found is not None
    assert (found.tokens.dtype, found.tokens.shape) == ("int64", [N - 1, 4])
    assert (found.logprobs.dtype, found.logprobs.shape) == ("float32", [N - 1, 4])
    tokens = found.tokens.to_numpy()
    of_tokens = np.take_along_axis(logprobs[:-1], tokens, axis=1)
    assert np.abs(found.logprobs.to_numpy() - of_tokens).max() < near
    n_differ = 0
    for i in range(N - 1):  # the draws of the reference, by the stream that is promised
        probabilities = reference.truncated(logprobs[i], 0.7, -1, 1.0)
        for j in range(4):
            n_differ += tokens[i, j] != reference.draw(probabilities, reference.uniform(8, j, i + 1))
    assert n_differ <= (4 if near > 1e-3 else 1), "a draw can only fall otherwise where two ids meet"


def check_last(response: SampleResponse, asked: bool, logprobs: NDArray[np.float64], near: float) -> None:
    found, top = response.prompt_logprobs, response.topk_prompt_logprobs
    if not asked:
        assert (found, top) == (None, None)
        return
    assert found is not None
    assert top is not None
    assert (len(found), len(top)) == (N, N)
    assert found[:-9] == [None] * (N - 9)
    assert top[:-9] == [None] * (N - 9)
    scores = logprobs[np.arange(N - 10, N - 1), TOKENS[-9:]]
    assert np.abs(np.array(found[-9:]) - scores).max() < near
    best = np.sort(logprobs[N - 10 : N - 1], axis=1)[:, :-3:-1]
    assert np.abs(np.array([[p for _, p in row or []] for row in top[-9:]]) - best).max() < near


def check_top(
    response: SampleResponse,
    asked: bool,
    logprobs: NDArray[np.float64],
    near: float,
    client: SamplingClient,
) -> None:
    for sequence in response.sequences:
        if not asked:
            assert (sequence.topk_logprobs_np, sequence.topk_logprobs) == (None, None)
            continue
        assert sequence.topk_logprobs_np is not None
        assert sequence.topk_logprobs is not None
        assert sequence.topk_logprobs_np.token_ids.shape == (3, 5)
        first = sequence.topk_logprobs[0] or []
        order = reference.best_first(logprobs[-1])[:5]
        assert near > 1e-3 or [i for i, _ in first] == order.tolist()
        assert np.abs(np.array([p for _, p in first]) - logprobs[-1, order]).max() < near
        whole = client.sample(
            prompt([*TOKENS, *sequence.tokens]),
            1,
            ONE,
            include_prompt_logprobs=True,
            topk_prompt_logprobs=5,
            prompt_logprobs_last_n=3,
        ).result(60)
        assert whole.topk_prompt_logprobs_np is not None
        gap = whole.topk_prompt_logprobs_np.logprobs[-3:] - sequence.topk_logprobs_np.logprobs
        assert np.abs(gap).max() < max(near, 1e-3)


@pytest.mark.parametrize("options", MODES, ids=str)
def test_sparse_targets_have_the_numbers_of_dense_ones(directory: Path, options: dict[str, Any]) -> None:
    client = open_client(directory, **{**options, "n_ctx": 256})
    cells = {(30, 1): 7, (30, 0): 3, (88, 2): 9, (60, 1): -1}
    ids = np.full((N - 1, 3), -1)
    for place, token in cells.items():
        ids[place] = token
    asked = sparse(cells, 3)
    found = client.sample(prompt(TOKENS), 1, ONE, target_prompt_logprobs=asked).result(60)
    dense = client.sample(prompt(TOKENS), 1, ONE, target_prompt_logprobs=TensorData.from_numpy(ids))
    answer, wanted = found.target_prompt_logprobs, dense.result(60).target_prompt_logprobs
    assert answer is not None
    assert wanted is not None
    assert (answer.sparse_crow_indices, answer.sparse_col_indices) == (
        asked.sparse_crow_indices,
        asked.sparse_col_indices,
    )
    assert len(answer.data) == 4
    assert np.abs(answer.to_numpy() - wanted.to_numpy()).max() < 1e-5
    assert (answer.to_numpy() != 0).sum() == 3


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_invariant_bits_whatever_is_kept_and_asked(directory: Path, architecture: Architecture) -> None:
    """With batch_invariant, each answer has the bits of the full pass on an engine that knows nothing."""
    client = open_client(directory, architecture, batch_invariant=True, n_ctx=256)
    fresh = open_client(directory, architecture, batch_invariant=True, n_ctx=256, prefix_cache=False)
    ids = TensorData.from_numpy(np.random.default_rng(3).integers(-1, V, (N - 1, 2)))
    everything: dict[str, Any] = {
        "include_prompt_logprobs": True,
        "topk_prompt_logprobs": 3,
        "topk_sample_logprobs": 4,
        "target_prompt_logprobs": ids,
        "prompt_alt_tokens_k": 2,
    }
    params = SamplingParams(max_tokens=6, seed=4, stop=[])
    full = fresh.sample(prompt(TOKENS), 2, params, **everything).result(60)
    assert full.prompt_logprobs is not None
    for last in (5, 40, N - 1, 17):
        scores = client.compute_logprobs(prompt(TOKENS), last).result(60)
        assert scores == [None] * (N - last) + full.prompt_logprobs[-last:]
    late = sparse({(80, 0): 11, (88, 1): 12}, 2)
    kept = client.sample(prompt(TOKENS), 2, params, target_prompt_logprobs=late).result(60)
    plain = fresh.sample(prompt(TOKENS), 2, params, target_prompt_logprobs=late).result(60)
    assert kept.prompt_cache_hit_tokens > 0 or architecture == "gemma3"  # its window has moved on
    assert kept.target_prompt_logprobs is not None
    assert plain.target_prompt_logprobs is not None
    assert kept.target_prompt_logprobs.data == plain.target_prompt_logprobs.data
    for _ in range(2):
        again = client.sample(prompt(TOKENS), 2, params, **everything).result(60)
        assert again.prompt_logprobs == full.prompt_logprobs
        assert again.topk_prompt_logprobs == full.topk_prompt_logprobs
        assert again.target_prompt_logprobs is not None
        assert full.target_prompt_logprobs is not None
        assert again.target_prompt_logprobs.data == full.target_prompt_logprobs.data
        assert again.prompt_alt_tokens is not None
        assert full.prompt_alt_tokens is not None
        assert again.prompt_alt_tokens.tokens.data == full.prompt_alt_tokens.tokens.data
        assert again.prompt_alt_tokens.logprobs.data == full.prompt_alt_tokens.logprobs.data
        for one, other in zip(again.sequences, full.sequences, strict=True):
            assert (one.tokens, one.logprobs) == (other.tokens, other.logprobs)
            assert one.topk_logprobs == other.topk_logprobs


def test_only_the_rows_that_are_needed(directory: Path) -> None:
    """llama.cpp is asked for the rows from the first wanted position on, and computes no prefix twice."""
    client = open_client(directory)
    context = client._engine._loop._context
    assert context is not None
    asked: list[tuple[int, int]] = []
    decode = context.decode

    def count(n_tokens: int) -> None:
        asked.append((n_tokens, int(np.sum(context.batch.flags[:n_tokens]))))
        decode(n_tokens)

    context.decode = count  # type: ignore[method-assign]

    def total(**questions: Any) -> tuple[int, int]:
        asked.clear()
        client.sample(prompt(TOKENS), 1, ONE, **questions).result(60)
        return sum(n for n, _ in asked), sum(n for _, n in asked)

    late = {"target_prompt_logprobs": sparse({(80, 0): 3}, 1)}
    assert total(**late) == (90, 10), "rows 80 to 89"
    last = {"include_prompt_logprobs": True, "prompt_logprobs_last_n": 20}
    assert total(**last) == (21, 21), "rows 69 to 89; the prefix is cached"
    assert total(**last) == (0, 0), "and now these scores are, and the row after them"
    assert total(**{**last, "prompt_logprobs_last_n": 4}) == (0, 0)
    assert total(**late) == (10, 10), "scores that are kept answer no other question"
    assert total(**last, prompt_alt_tokens_k=1) == (90, 90)


def test_the_last_n_of_prompts_that_share_a_context(directory: Path) -> None:
    """Continuations of one context, in a batch and one by one, with the context computed once."""
    client, fresh = open_client(directory), open_client(directory, prefix_cache=False)
    rng = np.random.default_rng(9)
    ends = [rng.integers(0, 256, n).tolist() for n in (1, 5, 12, 70, 200)]
    futures = [client.compute_logprobs(prompt([*TOKENS, *end]), len(end)) for end in ends]
    for end, future in zip(ends, futures, strict=True):
        whole = fresh.compute_logprobs(prompt([*TOKENS, *end])).result(60)[-len(end) :]
        batch = future.result(60)
        later = client.compute_logprobs(prompt([*TOKENS, *end]), len(end)).result(60)
        assert batch[: -len(end)] == later[: -len(end)] == [None] * N
        assert np.abs(np.array(batch[-len(end) :]) - np.array(whole)).max() < 2e-5
        assert batch[-len(end) :] == later[-len(end) :]
    context = client.compute_logprobs(prompt(TOKENS)).result(60)
    assert None not in context[1:], "what was not asked for before is computed now"


def test_alternatives_follow_the_distribution(directory: Path) -> None:
    """Frequencies of 1,024 draws a position, at two temperatures, against exact probabilities."""
    client = open_client(directory)
    whole = client.sample(prompt(TOKENS[:6]), 1, ONE, topk_prompt_logprobs=V).result(60)
    assert whole.topk_prompt_logprobs_np is not None
    for temperature in (0.5, 1.0):
        params = SamplingParams(max_tokens=1, seed=2, temperature=temperature, top_k=1)
        found = client.sample(prompt(TOKENS[:6]), 1, params, prompt_alt_tokens_k=1024).result(60)
        assert found.prompt_alt_tokens is not None
        drawn = found.prompt_alt_tokens.tokens.to_numpy()
        for i in range(5):
            top = whole.topk_prompt_logprobs_np
            p = np.zeros(V)
            p[top.token_ids[i + 1]] = np.exp(top.logprobs[i + 1].astype(float) / temperature)
            p /= p.sum()
            counts = np.bincount(drawn[i], minlength=V)
            variance = 1024 * p * (1 - p)
            chi2 = ((counts - 1024 * p) ** 2 / np.maximum(variance, 1)).sum()
            assert chi2 < V + 6 * np.sqrt(2 * V)


def test_alternatives_of_greedy_requests_are_the_best_token(directory: Path) -> None:
    client = open_client(directory)
    params = SamplingParams(max_tokens=1, temperature=0)
    found = client.sample(prompt(TOKENS), 1, params, topk_prompt_logprobs=1, prompt_alt_tokens_k=2).result(
        60
    )
    assert found.prompt_alt_tokens is not None
    assert found.topk_prompt_logprobs_np is not None
    best = found.topk_prompt_logprobs_np.token_ids[1:]
    assert (found.prompt_alt_tokens.tokens.to_numpy() == best).all()


def test_prompts_of_one_and_two_tokens(directory: Path) -> None:
    client = open_client(directory)
    one = client.sample(prompt([5]), 1, ONE, include_prompt_logprobs=True, prompt_alt_tokens_k=3).result(60)
    assert one.prompt_logprobs == [None]
    assert one.prompt_alt_tokens is not None
    assert one.prompt_alt_tokens.tokens.shape == [0, 3]
    two = client.compute_logprobs(prompt([5, 6]), 1).result(60)
    assert two == client.compute_logprobs(prompt([5, 6])).result(60)


def dense(ids: Any) -> dict[str, TensorData]:
    return {"target_prompt_logprobs": TensorData.from_numpy(np.asarray(ids))}


def rows(ids: list[int], begins: list[int], columns: list[int]) -> dict[str, TensorData]:
    return {"target_prompt_logprobs": TensorData(ids, "int64", [N - 1, 2], begins, columns)}


BELOW = np.where(np.arange(N - 1)[:, None] == 3, -2, 1)
BAD: list[tuple[dict[str, Any], str, bool]] = [
    ({"prompt_logprobs_last_n": 3}, "set include_prompt_logprobs", True),
    ({"prompt_logprobs_last_n": 0, "include_prompt_logprobs": True}, "is 0; .* 1 or greater", True),
    ({"prompt_logprobs_last_n": N, "include_prompt_logprobs": True}, "at most 89", False),
    ({"prompt_logprobs_last_n": 1.5, "include_prompt_logprobs": True}, "1.5", True),
    ({"prompt_alt_tokens_k": -1}, "is -1; it must be 0 or greater", True),
    ({"prompt_alt_tokens_k": 2000}, "2000; it must be at most 1024", False),
    ({"prompt_alt_tokens_k": "x"}, "'x'", False),
    ({"topk_sample_logprobs": -1}, "topk_sample_logprobs is -1", False),
    ({"topk_sample_logprobs": 401}, "401", False),
    ({"target_prompt_logprobs": [[1]]}, "is a list", True),
    (dense(np.ones((N - 1, 1))), "tensor of float32", True),
    (dense(np.ones(N - 1, int)), "must be 2-D", True),
    (dense(np.ones((N, 1), int)), "90 rows .* 89", False),
    (dense(np.full((N - 1, 1), -1)), "holds no token id", False),
    (dense(np.full((N - 1, 1), 400)), "holds 400", False),
    (dense(BELOW), "holds -2", False),
    (rows([1], [0] * (N - 1) + [1], [2]), "from 0 to 1", False),
    (rows([1], [0, 1], [1]), "2 entries; 89 rows need 90", False),
    (rows([1], [0] * N, [1]), "rise from 0", False),
]


@pytest.mark.parametrize(("questions", "said", "is_value_error"), BAD)
def test_bad_questions(
    directory: Path, questions: dict[str, Any], said: str, is_value_error: bool, tiny: SamplingClient
) -> None:
    with pytest.raises(BadRequestError, match=said) as caught:
        tiny.sample(prompt(TOKENS), 1, ONE, **questions)
    assert isinstance(caught.value, ValueError) == is_value_error, "as in the SDK"
    assert tiny.sample(prompt(TOKENS[:3]), 1, ONE).result(60).sequences


@pytest.fixture(scope="module")
def tiny(directory: Path) -> SamplingClient:
    return open_client(directory)
