"""What a type costs in quality: how far its next-token distributions are from a reference's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinker_local.kernels import score_rows
from tinker_local.llama.context import Context
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.machine import default_threads
from tinker_local.llama.model import Model
from tinker_local.options import Options

_CHUNK = 128  # rows of logits that are compared at once


@dataclass(frozen=True, slots=True)
class Quality:
    """How a model predicts a text.

    Attributes:
        kl: mean over the text's positions of KL(reference || this) of the next token's distribution, in
            nats; 0 is the reference itself.
        kl_error: standard error of that mean.
        perplexity: of the text's tokens, each window's first left out.
        n_tokens: positions compared.
    """

    kl: float
    kl_error: float
    perplexity: float
    n_tokens: int


def compare(reference: Model, model: Model, windows: Sequence[Sequence[int]], options: Options) -> Quality:
    """Let both read the same texts and compare what they expect after every token.

    Args:
        reference: what is taken for the truth.
        model: one with the same vocabulary.
        windows: token ids; each window is read from an empty context.
        options: threads, and how the KV cache is kept.
    """
    size = max(map(len, windows))
    contexts = [_context(each, size, options) for each in (reference, model)]
    divergences, targets = [], []
    try:
        for window in windows:
            expected, found = (_logits(context, window) for context in contexts)
            for (rows, next_tokens), (others, _) in zip(expected, found, strict=True):
                divergences.append(kl_divergence(rows, others))
                scores = score_rows(others, targets=next_tokens).target_logprobs
                assert scores is not None
                targets.append(scores[next_tokens >= 0])
    finally:
        for context in contexts:
            context.close()
    kl, logprobs = np.concatenate(divergences), np.concatenate(targets)
    return Quality(
        float(kl.mean()),
        float(kl.std(ddof=1)) / math.sqrt(len(kl)),
        math.exp(-float(logprobs.mean(dtype=np.float64))),
        len(kl),
    )


def kl_divergence(expected: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return KL(softmax(expected) || softmax(found)) of each row, in nats.

    float32 [n, V] each; with p the first distribution and Z the sums of exponentials it is the sum of
    p (expected - found), less log Z(expected) - log Z(found).
    """
    log_z, other_log_z = score_rows(expected).logsumexp, score_rows(found).logsumexp
    p = np.exp(expected - log_z[:, None].astype(np.float32))
    # Products with both normalisers taken off first: what is left is small where the two agree.
    difference = (expected - found) - (log_z - other_log_z)[:, None].astype(np.float32)
    sums: NDArray[np.float64] = np.einsum("nv,nv->n", p, difference, dtype=np.float64)
    return sums


def _context(model: Model, size: int, options: Options) -> Context:
    plan = ContextPlan(
        n_ctx=size,
        n_sequences=1,
        n_batch=_CHUNK,
        n_rows=_CHUNK,
        n_threads=options.n_threads or default_threads(),
        kv_type=options.kv_type,
        flash_attn=options.flash_attn,
        kv_offload=options.kv_offload,
    )
    return Context(model, plan)


def _logits(
    context: Context, window: Sequence[int]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """Yield the logits after each token, a chunk at a time, and the tokens that come there; -1 for none."""
    context.remove_sequence(0)
    tokens = np.array(window, np.int32)
    following = np.append(tokens[1:], np.int32(-1)).astype(np.int32)
    for start in range(0, len(tokens), context.n_rows):
        chunk = slice(start, start + context.n_rows)
        n = len(tokens[chunk])
        batch = context.batch
        batch.tokens[:n] = tokens[chunk]
        batch.positions[:n] = np.arange(start, start + n)
        batch.sequences[:n], batch.flags[:n] = 0, 1
        context.decode(n)
        yield context.logits(n), np.ascontiguousarray(following[chunk])
