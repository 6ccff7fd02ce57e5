"""Quality of a type: how far its next-token distributions are from those of a reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.own_kernels import with_own_kernels
from tinker_local.kernels import score_rows
from tinker_local.llama.context import Context
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.machine import threads
from tinker_local.llama.model import Model
from tinker_local.options import Options

_CHUNK = 128  # rows of logits compared at once


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a model predicts a text, and how closely it follows the reference.

    Attributes:
        kl: KL(reference || model) of the next token's distribution, mean over the text, in nats.
        kl_error: standard error of that mean.
        perplexity: the model's perplexity of the text, without the first token of each window.
        n_tokens: number of positions compared.
    """

    kl: float
    kl_error: float
    perplexity: float
    n_tokens: int


def compare(reference: Model, model: Model, windows: Sequence[Sequence[int]], options: Options) -> Quality:
    """Compare the next-token distributions of two models after every token of a text.

    Args:
        reference: the model that counts as exact.
        model: the model to judge; it has the same vocabulary.
        windows: token ids; each window starts with an empty context.
        options: threads and KV cache.
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
    """Return KL(softmax(expected) || softmax(found)) of each row, in nats: float64 [n].

    With p = softmax(expected) and Z(x) = sum(exp(x)), a row's divergence is
    sum(p * (expected - found)) - (log Z(expected) - log Z(found)).

    Args:
        expected: logits of the reference, float32 [n, V].
        found: logits of the other model, float32 [n, V].
    """
    log_z, other_log_z = score_rows(expected).logsumexp, score_rows(found).logsumexp
    p = np.exp(expected - log_z[:, None].astype(np.float32))
    # Subtract the normalisers before the product, not after the sum: the terms are then small where the
    # two distributions agree, and float32 loses nothing.
    difference = (expected - found) - (log_z - other_log_z)[:, None].astype(np.float32)
    sums: NDArray[np.float64] = np.einsum("nv,nv->n", p, difference, dtype=np.float64)
    return sums


def _context(model: Model, size: int, options: Options) -> Context:
    plan = ContextPlan(
        n_ctx=size,
        n_sequences=1,
        n_batch=_CHUNK,
        n_rows=_CHUNK,
        n_threads=threads(options)[1],
        kv_type=options.kv_type,
        flash_attn=options.flash_attn,
        kv_offload=options.kv_offload,
    )
    return Context(model, with_own_kernels(plan, model, options))


def _logits(
    context: Context, window: Sequence[int]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """Yield chunks of a window: logits after each token, float32 [n, V], and the next tokens, int32 [n].

    The last token of the window has no next one: -1.
    """
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
