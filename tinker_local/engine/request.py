"""Requests of a client, their outcomes, and a limit on the memory of those that are unfinished."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.image import PlacedImage
from tinker_local.engine.logit_rule import LogitRule
from tinker_local.engine.scores import Alternatives, Scores, Targets, Wanted
from tinker_local.errors import BadRequestError, RateLimitError
from tinker_local.futures import when_done
from tinker_local.types import SampledToken, StopReason

_REQUEST_BYTES = 1500  # a request and its future, without the tokens
_DRAWN_BYTES = 72  # a drawn token: two Python objects and their places in lists
_EDIT_BYTES = 140  # an edit of a drawn token's logit
_SCORED_BYTES = 8  # an id and its log-probability


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a sample is complete.

    Attributes:
        end_of_generation: stop at the model's end-of-generation tokens.
        tokens: stop at any of these ids.
        strings: stop when the bytes of the continuation contain one of these.
    """

    end_of_generation: bool = True
    tokens: frozenset[int] = frozenset()
    strings: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A checked request of a client.

    Attributes:
        prompt: int32 token ids, shape (n,), n >= 1; in the cells of an image its id.
        images: those of the prompt, in order.
        reads_last: whether the prompt's last token is computed. False where it is only scored: in a prompt
            that is one token longer than the context.
        num_samples: continuations to draw; 0 only scores the prompt.
        max_tokens: most tokens of each continuation; n_read + max_tokens fits the context.
        temperature, top_k, top_p, min_p, seed: see ``types.SamplingParams``; seed is in [0, 2**64).
        logit_rule: how logits are changed before a token is drawn; None where they are not.
        stop: when a continuation is complete.
        prompt_logprobs: whether the prompt's tokens are scored.
        topk_prompt_logprobs: most probable tokens to report at each prompt position.
        prompt_logprobs_from: first position at which these two are asked for; at least 1.
        topk_sample_logprobs: most probable tokens to report at each drawn one.
        targets: ids to score at prompt positions.
        prompt_alt_tokens_k: tokens to draw at each prompt position but the first. Draw j at position i
            uses the stream (seed, j) at i, which no sample reaches.
        raw_logprobs: report the plain model's log-probabilities of sampled tokens instead of those of
            the distribution they were drawn from.
        future: resolved with what ``assemble`` makes of the outcome.
        assemble: turns an ``Outcome`` into the client's response, on the thread pool.
        submitted_at: time of submission, by ``time.monotonic``.
        on_token: called on the engine's thread with (sample index, token) as tokens are drawn. ``Engine``
            puts a ``TokenFeed`` in the place of a user's function, so that it returns at once. An
            ``Immediate`` does so by itself.
    """

    prompt: NDArray[np.int32]
    future: Future[Any]
    assemble: Callable[[Outcome], Any]
    images: tuple[PlacedImage, ...] = ()
    reads_last: bool = True
    num_samples: int = 0
    max_tokens: int = 0
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    min_p: float = 0.0
    logit_rule: LogitRule | None = None
    seed: int = 0
    stop: StopRule = field(default_factory=StopRule)
    prompt_logprobs: bool = False
    topk_prompt_logprobs: int = 0
    prompt_logprobs_from: int = 1
    topk_sample_logprobs: int = 0
    targets: Targets | None = None
    prompt_alt_tokens_k: int = 0
    raw_logprobs: bool = False
    on_token: Callable[[int, SampledToken], None] | None = None
    submitted_at: float = field(default_factory=time.monotonic)

    @property
    def n_read(self) -> int:
        """Number of the prompt's tokens that are computed."""
        return len(self.prompt) - (not self.reads_last)

    @property
    def scores_prompt(self) -> bool:
        """Whether logits are wanted at other prompt positions than the last."""
        return self._scores_tokens or self.targets is not None or self.prompt_alt_tokens_k > 0

    @property
    def wanted(self) -> Wanted:
        """Scores wanted of a prompt that is scored: all from the first position asked for."""
        n = len(self.prompt)
        limit = n if self.targets is None else self.targets.first
        if self.prompt_alt_tokens_k:
            limit = 1
        first = min(limit, self.prompt_logprobs_from) if self._scores_tokens else limit
        return Wanted(first, limit, self.topk_prompt_logprobs)

    def offers(self, wanted: Wanted) -> bool:
        """Whether the scores that another request wants will be among those of this one."""
        own = self.wanted
        return self.scores_prompt and own.first <= wanted.first and own.k >= wanted.k

    def position(self, n_cells: int) -> int:
        """Return the position of what follows the first ``n_cells`` tokens and whole images.

        Positions are what a model rotates by. Cells are counted one by one, and an image may take fewer
        positions than cells.
        """
        ended = (placed.image for placed in self.images if placed.start < n_cells)
        return n_cells + sum(image.n_positions - image.n_tokens for image in ended)

    @property
    def _scores_tokens(self) -> bool:
        return self.prompt_logprobs or self.topk_prompt_logprobs > 0


@dataclass(frozen=True, slots=True)
class SampleOutcome:
    """A finished sample of n tokens.

    Attributes:
        tokens, logprobs: int32 and float32 (n,).
        topk_ids, topk_logprobs: int32 and float32 (n, k); None where the request asks for none.
    """

    stop_reason: StopReason
    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    topk_ids: NDArray[np.int32] | None = None
    topk_logprobs: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The engine's answer to a request, in numpy arrays.

    Attributes:
        samples: the finished samples, in order.
        scores, target_logprobs, alternatives: as in ``sequence.Prompt``.
        n_cached: prompt tokens that were in the KV cache when the request began.
        n_prompt: tokens of the prompt.
        queue_wait: seconds between submission and start.
        time_to_first_token: seconds between submission and the first drawn token; None without one.
    """

    samples: list[SampleOutcome]
    scores: Scores
    n_cached: int
    target_logprobs: NDArray[np.float32] | None = None
    alternatives: Alternatives | None = None
    n_prompt: int = 0
    queue_wait: float = 0.0
    time_to_first_token: float | None = None


class QueueLimit:
    """Bounds the memory that the unfinished requests of an engine take.

    Args:
        n_bytes: the bound.
    """

    def __init__(self, n_bytes: int) -> None:
        self._limit = n_bytes
        self._lock = threading.Lock()
        self._used = 0
        self._n_requests = 0

    def admit(self, request: Request) -> None:
        """Count a request until its future is done.

        Raises:
            RateLimitError: the unfinished requests already take what they may.
            BadRequestError: the answer to this one could take more than all of them may.
        """
        if (answer := _answer_bytes(request)) > self._limit:
            raise BadRequestError(
                f"the answer could take {answer / 1e6:,.0f} MB, and max_queue_mb allows "
                f"{self._limit / 1e6:,.0f}: {request.num_samples} samples of at most {request.max_tokens} "
                f"tokens, {len(request.prompt)} prompt tokens; ask for less at once"
            )
        n_bytes = _REQUEST_BYTES + request.prompt.nbytes
        n_bytes += sum(placed.image.n_bytes for placed in request.images)
        if request.targets is not None:
            n_bytes += request.targets.ids.nbytes + request.targets.indptr.nbytes
        if request.logit_rule is not None:
            n_bytes += request.logit_rule.n_bytes
        with self._lock:
            if self._used + n_bytes > self._limit:
                raise RateLimitError(
                    f"{self._n_requests:,} requests wait or run, and take as much memory as max_queue_mb "
                    f"allows, {self._limit / 1e6:,.0f} MB; wait for some of them"
                )
            self._used += n_bytes
            self._n_requests += 1
        when_done(request.future, partial(self._finished, n_bytes))

    def _finished(self, n_bytes: int, _future: Future[Any]) -> None:
        with self._lock:
            self._used -= n_bytes
            self._n_requests -= 1


def _answer_bytes(request: Request) -> int:
    drawn = _DRAWN_BYTES + _SCORED_BYTES * request.topk_sample_logprobs
    if request.logit_rule is not None and request.logit_rule.is_of_drawn:
        drawn += _EDIT_BYTES
    scored = _SCORED_BYTES * (1 + request.topk_prompt_logprobs + request.prompt_alt_tokens_k)
    return request.num_samples * request.max_tokens * drawn + len(request.prompt) * scored
