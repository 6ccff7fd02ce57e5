"""The mathematics of the kernels in float64 numpy, plainly written: what the tests compare with.

Same functions, arguments and results as `tinker_local.kernels`, one row and one token at a time,
with a full sort and no thought of speed. The engine never calls this.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tinker_local.kernels import Draws, LogitEdits, LogitsError, ScoredRows

_Array = npt.NDArray[Any]
_MASK = (1 << 64) - 1


def philox(seed: int, sample: int, position: int) -> npt.NDArray[np.uint64]:
    """Philox4x64-10 (Salmon et al., SC 2011): the block at `position` of stream (seed, sample)."""
    x0, x1, x2, x3 = position, 0, 0, 0
    key0, key1 = seed, sample
    for _ in range(10):
        low, high = x0 * 0xD2E7470EE14C6C93, x2 * 0xCA5A826395121157
        x0, x1, x2, x3 = (
            (high >> 64) ^ x1 ^ key0,
            high & _MASK,
            (low >> 64) ^ x3 ^ key1,
            low & _MASK,
        )
        key0, key1 = (key0 + 0x9E3779B97F4A7C15) & _MASK, (key1 + 0xBB67AE8584CAA73B) & _MASK
    return np.array([x0, x1, x2, x3], dtype=np.uint64)


def uniform(seed: int, sample: int, position: int) -> float:
    """A number in [0, 1): the top 53 bits of the block's first word."""
    return float(int(philox(seed, sample, position)[0]) >> 11) * 2.0**-53


def logsumexp(row: _Array) -> float:
    """log(sum(exp(row))), the largest entry taken out first."""
    largest = float(row.max())
    return largest + float(np.log(np.exp(row - largest).sum()))


def best_first(row: _Array) -> _Array:
    """All ids by falling logit, ties by lower id."""
    return np.lexsort((np.arange(row.size), -row))


def edited(row: _Array, edits: LogitEdits, request: int) -> _Array:
    """A row with the edits of a request, rounded to float32 as the kernels hold it."""
    result = row.copy()
    most = float(np.finfo(np.float32).max)
    for j in range(edits.indptr[request], edits.indptr[request + 1]):
        token = edits.ids[j]
        if np.isneginf(row[token]):
            continue
        x = row[token] + float(edits.bias[j])
        x = x / float(edits.repetition[j]) if x > 0 else x * float(edits.repetition[j])
        result[token] = np.float32(np.clip(x - float(edits.penalty[j]), -most, most))
    return result


def truncated(row: _Array, temperature: float, top_k: int, top_p: float, min_p: float = 0.0) -> _Array:
    """The probability of every id under softmax(row / temperature) cut to top_k, top_p, then min_p."""
    scaled = row / temperature
    probabilities = np.exp(scaled - logsumexp(scaled))
    order = best_first(row)
    if 0 < top_k < row.size:
        order = order[:top_k]
    kept = probabilities[order] / probabilities[order].sum()
    if top_p < 1:
        order = order[: int(np.searchsorted(np.cumsum(kept), top_p)) + 1]
    if min_p > 0:
        order = order[row[order] >= row.max() + temperature * np.log(min_p)]
    result = np.zeros_like(probabilities)
    result[order] = probabilities[order] / probabilities[order].sum()
    return result


def draw(probabilities: _Array, u: float) -> int:
    """Inverse of the cumulative distribution in id order: the first id whose sum exceeds u."""
    cumulative = np.cumsum(probabilities)
    token = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    return min(token, int(np.flatnonzero(probabilities)[-1]))


def _checked(logits: _Array, row: int) -> _Array:
    values: _Array = logits[row].astype(np.float64)
    if np.isnan(values).any():
        raise LogitsError(row, "holds NaN")
    if np.isposinf(values).any():
        raise LogitsError(row, "holds +inf")
    if np.isneginf(values).all():
        raise LogitsError(row, "is all -inf")
    return values


def score_rows(
    logits: _Array,
    *,
    rows: _Array | None = None,
    targets: _Array | None = None,
    topk: int = 0,
    ids: _Array | None = None,
    ids_indptr: _Array | None = None,
    alt_k: int = 0,
    alt_temperature: float = 1.0,
    seed: int = 0,
    positions: _Array | None = None,
    n_threads: int = 1,
) -> ScoredRows:
    """Log-probabilities of rows of logits; see `tinker_local.kernels.score_rows`."""
    rows = np.arange(len(logits)) if rows is None else rows
    n = len(rows)
    sums = np.zeros(n)
    target_logprobs = np.full(n, np.nan, dtype=np.float32)
    topk_ids = np.zeros((n, topk), dtype=np.int32)
    topk_logprobs = np.zeros((n, topk), dtype=np.float32)
    id_logprobs = np.zeros(() if ids is None else ids.shape, dtype=np.float32)
    alt_tokens = np.zeros((n, alt_k), dtype=np.int32)
    alt_logprobs = np.zeros((n, alt_k), dtype=np.float32)
    for i, r in enumerate(rows):
        row = _checked(logits, int(r))
        sums[i] = logsumexp(row)
        logprobs = row - sums[i]
        if targets is not None and targets[i] >= 0:
            target_logprobs[i] = logprobs[targets[i]]
        if topk:
            topk_ids[i] = best_first(row)[:topk]
            topk_logprobs[i] = logprobs[topk_ids[i]]
        if ids is not None:
            part: Any = slice(ids_indptr[i], ids_indptr[i + 1]) if ids_indptr is not None else i
            id_logprobs[part] = np.where(ids[part] < 0, 0.0, logprobs[ids[part]])
        for j in range(alt_k):
            assert positions is not None
            if alt_temperature == 0:
                alt_tokens[i, j] = best_first(row)[0]
            else:
                probabilities = truncated(row, alt_temperature, -1, 1.0)
                alt_tokens[i, j] = draw(probabilities, uniform(seed, j, int(positions[i])))
            alt_logprobs[i, j] = logprobs[alt_tokens[i, j]]
    return ScoredRows(
        logsumexp=sums,
        target_logprobs=None if targets is None else target_logprobs,
        topk_ids=topk_ids if topk else None,
        topk_logprobs=topk_logprobs if topk else None,
        id_logprobs=None if ids is None else id_logprobs,
        alt_tokens=alt_tokens if alt_k else None,
        alt_logprobs=alt_logprobs if alt_k else None,
    )


def sample_rows(
    logits: _Array,
    *,
    rows: _Array,
    temperature: _Array,
    top_k: _Array,
    top_p: _Array,
    seed: _Array,
    sample: _Array,
    position: _Array,
    min_p: _Array | None = None,
    edits: LogitEdits | None = None,
    topk: int = 0,
    n_threads: int = 1,
) -> Draws:
    """One token drawn from each row; see `tinker_local.kernels.sample_rows`."""
    n = len(rows)
    tokens = np.zeros(n, dtype=np.int32)
    logprobs = np.zeros(n, dtype=np.float32)
    raw_logprobs = np.zeros(n, dtype=np.float32)
    topk_ids = np.zeros((n, topk), dtype=np.int32)
    topk_logprobs = np.zeros((n, topk), dtype=np.float32)
    for i, r in enumerate(rows):
        row = _checked(logits, int(r))
        raw = row - logsumexp(row)
        drawn_from = row if edits is None else edited(row, edits, i)
        if temperature[i] == 0:
            tokens[i] = best_first(drawn_from)[0]
            logprobs[i] = drawn_from[tokens[i]] - logsumexp(drawn_from)
        else:
            settings = float(temperature[i]), int(top_k[i]), float(top_p[i])
            probabilities = truncated(drawn_from, *settings, 0.0 if min_p is None else float(min_p[i]))
            u = uniform(int(seed[i]), int(sample[i]), int(position[i]))
            tokens[i] = draw(probabilities, u)
            logprobs[i] = np.log(probabilities[tokens[i]])
        raw_logprobs[i] = raw[tokens[i]]
        topk_ids[i] = best_first(row)[:topk]
        topk_logprobs[i] = raw[topk_ids[i]]
    return Draws(
        tokens=tokens,
        logprobs=logprobs,
        raw_logprobs=raw_logprobs,
        topk_ids=topk_ids if topk else None,
        topk_logprobs=topk_logprobs if topk else None,
    )
