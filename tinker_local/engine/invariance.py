"""Batch invariance: how tokens have to be computed for each to come out in the same bits every time.

llama.cpp's CPU code picks its kernels by shape, and kernels add in different orders. What a token's
logits may depend on, and what is done about it:

- Weights multiply all tokens of a micro-batch together, the last layer and the output matrix the flagged
  ones. One row is a series of dot products, more are a blocked product (``llamafile_sgemm``: from 2 rows on
  x86, from 4 or 8 on arm64). Repacked weights (``ggml-cpu/repack.cpp``) take rows in fours, with the rest
  one by one. So both numbers are at least ``n_rows``, and multiples of ``multiple``.
- Attention is our own (``llama/graph_callback.py``): its numbers for a query do not depend on the others.
- Where the installed ggml is not the one that our attention knows, it is flash attention's plain kernel.
  That takes each query by itself through the cells in their order and skips masked ones. Its variants for
  64 queries or more, and for one query and 512 cells or more, need keys and values of one type
  (``ggml_compute_forward_flash_attn_ext_f16``), so values are bfloat16 then.
- With float32 caches, which flash attention would cast to float16, it is off. It is off too for latent
  attention (MLA) where ggml is not known. Attention then multiplies one sequence at a time as above, and
  each sequence has at least ``per_sequence`` tokens in every batch.
- Within a kernel each number is a sum of its own in a fixed order, whatever the tiles and threads.
- That order runs over the cells of the cache, where other sequences' cells would come between. So each
  sequence has a stream of cells, in which its position is the cell; those beyond its end add nothing.
- Experts take their tokens one by one (``ggml_compute_forward_mul_mat_id``). GPUs and BLAS choose by shape
  too and give no promise.

``invariant_plan`` decides what is fixed when a context is made; ``llama/context.py`` only applies it.
Which numbers of tokens a machine and a model need is found by ``find_rule``, which measures bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tinker_local.errors import BadRequestError
from tinker_local.llama.context import Context
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.devices import ACCELERATOR, kinds
from tinker_local.llama.graph_callback import graph_callback
from tinker_local.llama.machine import main_memory
from tinker_local.llama.model import Model

MAX_TOKENS = 16
"""Most tokens of a sequence in a batch of samples; a stream has this many cells to spare."""

_USUAL, _FEWEST, _MOST = 8, 4, 32  # streams
_USUAL_SHARE, _LARGEST_SHARE = 8, 4  # of main memory, as divisors
_N_BATCH_BESIDE_BLAS = 24  # ggml-blas takes over multiplications from 32 rows on


@dataclass(frozen=True, slots=True)
class Rule:
    """How many tokens and flagged tokens a batch must have.

    Attributes:
        per_sequence: fewest tokens of each sequence.
        n_rows: fewest tokens of all sequences together, and fewest flagged tokens.
        multiple: both numbers must be multiples of this.
    """

    per_sequence: int
    n_rows: int
    multiple: int

    def padded(self, n: int) -> int:
        """Return the smallest number of tokens or flags that is allowed and at least ``n``."""
        return max(self.n_rows, -(-n // self.multiple) * self.multiple)

    def allows(self, n_sequences: int, n_tokens: int) -> bool:
        """Whether a batch may have ``n_sequences`` sequences of ``n_tokens`` tokens each."""
        total = n_sequences * n_tokens
        return n_tokens >= self.per_sequence and self.padded(total) == total

    @lru_cache(maxsize=4096)  # noqa: B019 - rules are few and live as long as the process
    def shape(self, n_sequences: int, n_tokens: int, most_sequences: int) -> tuple[int, int]:
        """Return the smallest allowed batch that has room: its sequences, and the tokens of each.

        Args:
            n_sequences: fewest sequences.
            n_tokens: fewest tokens of each.
            most_sequences: most sequences.
        """
        widths = range(n_sequences, min(n_sequences + self.multiple, most_sequences + 1))
        lengths = range(n_tokens, max(n_tokens, self.n_rows) + self.multiple + 1)
        allowed = [(w, t) for w in widths for t in lengths if self.allows(w, t)]
        return min(allowed, key=lambda shape: shape[0] * shape[1])


RULES = (Rule(1, 2, 1), Rule(1, 8, 4), Rule(2, 2, 1), Rule(2, 8, 4), Rule(8, 8, 4))
"""From the cheapest. The first is enough on x86, the second for repacked weights and on arm64. The others
are the same without flash attention, where a sequence's tokens are multiplied together too."""


@dataclass(frozen=True, slots=True)
class StreamBlock:
    """The next tokens of some neighbouring streams: the same number for each.

    llama.cpp splits a batch where stream numbers have gaps or lengths differ, and each part would have to
    satisfy the rule by itself.

    Attributes:
        first: number of the first stream.
        tokens: int32 (n_streams, n_tokens).
        starts: int32 (n_streams,), the position of each stream's first token.
        wanted: bool (n_streams, n_tokens), the tokens whose logits are wanted.
    """

    first: int
    tokens: NDArray[np.int32]
    starts: NDArray[np.int32]
    wanted: NDArray[np.bool_]

    def decode(self, context: Context, rule: Rule) -> NDArray[np.intp]:
        """Compute the block; return the index of each token's row of logits, -1 for none.

        The result has shape (n_streams, n_tokens).

        Raises:
            DecodeError: llama.cpp did not compute it.
        """
        n_streams, n_tokens = self.tokens.shape
        assert rule.allows(n_streams, n_tokens), (rule, self.tokens.shape)
        batch, n = context.batch, n_streams * n_tokens
        streams = np.arange(self.first, self.first + n_streams)
        flags = self._flags(rule)
        batch.tokens[:n] = self.tokens.ravel()
        batch.positions[:n] = (self.starts[:, None] + np.arange(n_tokens)).ravel()
        batch.sequences[:n] = np.repeat(streams, n_tokens)
        batch.flags[:n] = flags
        context.decode(n)
        return np.where(flags, np.cumsum(flags) - 1, -1).reshape(self.tokens.shape)

    def _flags(self, rule: Rule) -> NDArray[np.bool_]:
        """Return the wanted tokens, and as many others from the end as the rule wants flagged."""
        flags = self.wanted.ravel().copy()
        n_wanted = int(flags.sum())
        if n_wanted:
            spare = np.flatnonzero(~flags)
            flags[spare[len(spare) - (rule.padded(n_wanted) - n_wanted) :]] = True
        return flags


def refuse_devices(names: str | None) -> None:
    """Raise BadRequestError if a GPU would compute layers."""
    found = [name for name, kind in kinds().items() if kind != ACCELERATOR]
    if found and (names is None or names.strip().casefold() != "none"):
        raise BadRequestError(
            f"batch_invariant: GPUs ({', '.join(found)}) choose their kernels by the size of the batch; "
            "pass devices='none' to compute on the CPU"
        )


def invariant_plan(plan: ContextPlan, model: Model) -> ContextPlan:
    """Return a plan for the same requests in which every choice that bits depend on is made.

    Sequences, batch, attention and number formats change; ``n_ctx`` and ``kv_type`` stay.

    Raises:
        BadRequestError: the model's memory cannot step back.
    """
    if model.is_recurrent:
        raise BadRequestError(
            f"batch_invariant: {model.path.name} is a recurrent or hybrid model, whose states cannot step "
            "back by a token; open it without batch_invariant"
        )
    n_batch = _n_batch(plan)
    plan = replace(
        _with_attention_by_rows(plan, model),
        kv_unified=False,  # a stream for each sequence: its position is the cell ..
        swa_full=True,  # .. behind a sliding window too
        n_spare_cells=MAX_TOKENS,
        n_batch=n_batch,
        n_rows=min(plan.n_rows, n_batch),
    )
    return replace(plan, n_sequences=_n_streams(plan, model))


def _with_attention_by_rows(plan: ContextPlan, model: Model) -> ContextPlan:
    """Choose an attention that takes each query by itself, where there is one: ``flash_attn`` then."""
    if plan.kv_type != "f16":
        return replace(plan, flash_attn=False)
    if graph_callback() is not None:
        return replace(plan, flash_attn=True, own_attention=True)
    if model.is_latent:
        return replace(plan, flash_attn=False)
    return replace(plan, flash_attn=True, value_type="bf16")


def _n_batch(plan: ContextPlan) -> int:
    """Return the tokens of a batch: a multiple of 8, and few where BLAS would take over many rows."""
    return (_N_BATCH_BESIDE_BLAS if _has_accelerator() else plan.n_batch) // 8 * 8


def _n_streams(plan: ContextPlan, model: Model) -> int:
    """Return how many streams there are: a multiple of 4.

    As many as fit an eighth of main memory, but at least 8 where these fit a quarter, and from 4 to 32.
    """
    stream, memory = plan.stream_bytes(model), main_memory()
    n_streams = max(_USUAL, memory // _USUAL_SHARE // stream)
    n_streams = min(n_streams, memory // _LARGEST_SHARE // stream)
    most = _USUAL if _has_accelerator() else _MOST
    return max(_FEWEST, min(most, n_streams // 4 * 4))


def _has_accelerator() -> bool:
    return any(kind == ACCELERATOR for kind in kinds().values())


def find_rule(context: Context) -> Rule:
    """Return the cheapest rule under which this machine gives one model's logits in the same bits.

    Eighty random tokens are computed at once by the strictest rule. By each other rule, half of them are
    computed again in small pieces, alone and beside another sequence, and every bit is compared. Uses the
    context's first three streams and leaves them empty.

    Raises:
        BadRequestError: no rule holds.
    """
    tokens = np.random.default_rng(0).integers(0, context.model.n_vocab, _N_CHECKED, np.int32)
    n_at_once = min(_N_CHECKED, context.n_batch, context.n_rows)
    try:
        expected = np.concatenate(
            [
                _logits(context, RULES[-1], 0, start, tokens[start : start + n_at_once])
                for start in range(0, _N_CHECKED, n_at_once)
            ]
        )
        for rule in RULES:
            if rule.per_sequence == 1 and not context.plan.flash_attn:
                continue  # attention multiplies a sequence's tokens together; few may agree by chance
            if all(np.array_equal(row, expected[at]) for at, row in _in_pieces(context, rule, tokens)):
                return rule
            _clear(context, 1, 2)
    finally:
        _clear(context, 0, 1, 2)
    raise BadRequestError(
        "batch_invariant: on this machine and build of llama-cpp-python, the logits of "
        f"{context.model.path.name} depend on what is computed together, by every rule that was tried; "
        "open it without batch_invariant"
    )


_N_CHECKED = (
    80  # allowed by every rule; more than the 32 from which BLAS takes over, the 64 of tiled attention
)
_PIECES = (1, 5, 2, 16, 3, 9, 1, 1, 1, 1)  # single tokens also where many cells are seen


def _in_pieces(
    context: Context, rule: Rule, tokens: NDArray[np.int32]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Compute tokens in stream 1 in small pieces; yield positions and their rows of logits."""
    start = 0
    for number, n in enumerate(_PIECES):
        piece = tokens[start : start + n]
        if number % 2:
            yield from ((start + i, row) for i, row in enumerate(_logits(context, rule, 1, start, piece)))
        else:
            yield from ((start + i, row) for i, row in enumerate(_beside(context, rule, start, piece)))
        start += n


def _logits(
    context: Context, rule: Rule, stream: int, start: int, tokens: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Compute tokens of one stream alone; return copies of their rows of logits."""
    return _padded(context, rule, stream, np.array([start], np.int32), tokens[None])


def _beside(context: Context, rule: Rule, start: int, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """Compute tokens of stream 1 beside others of stream 2; return copies of stream 1's rows of logits."""
    starts = np.array([start, context.sequence_length(2)], np.int32)
    return _padded(context, rule, 1, starts, np.stack([tokens, tokens[::-1]]))


def _padded(
    context: Context, rule: Rule, first: int, starts: NDArray[np.int32], tokens: NDArray[np.int32]
) -> NDArray[np.float32]:
    n_streams, n = tokens.shape
    _, length = rule.shape(n_streams, max(n, rule.per_sequence), n_streams)
    padded = np.zeros((n_streams, length), np.int32)
    padded[:, :n] = tokens
    wanted = np.zeros(padded.shape, np.bool_)
    wanted[0, :n] = True
    rows = StreamBlock(first, padded, starts, wanted).decode(context, rule)
    logits = context.logits(int(rows.max()) + 1)[rows[0, :n]].copy()
    for stream, start in enumerate(starts, first):
        context.truncate_sequence(stream, int(start) + n)
    return logits


def _clear(context: Context, *streams: int) -> None:
    for stream in streams:
        context.remove_sequence(stream)
