"""The state of one request: its prompt, and the samples that continue it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.scores import Alternatives, Scores, Targets, Wanted
from tinker_local.types import StopReason

Vocabulary = Callable[[int], tuple[bool, bytes]]
Top: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]
"""The most probable tokens in one place, best first, and their log-probabilities: both (k,)."""


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
    """What a client asks of the engine. Everything in it has been checked.

    Attributes:
        prompt: int32 token ids, shape (n,), n >= 1.
        num_samples: continuations to draw; 0 only scores the prompt.
        max_tokens: most tokens of each continuation; len(prompt) + max_tokens fits the context.
        temperature, top_k, top_p, seed: see ``types.SamplingParams``; seed is in [0, 2**64).
        stop: when a continuation is complete.
        prompt_logprobs: whether the prompt's tokens are scored.
        topk_prompt_logprobs: most probable tokens to report at each prompt position.
        prompt_logprobs_from: the first position at which these two are asked for; at least 1.
        topk_sample_logprobs: most probable tokens to report at each drawn one.
        targets: ids to score at prompt positions.
        prompt_alt_tokens_k: tokens to draw at each prompt position but the first; draw j at position i
            uses the stream (seed, j) at i, which no sample gets to.
        raw_logprobs: report the plain model's log-probabilities of sampled tokens instead of those of
            the distribution they were drawn from.
        future: resolved with what ``assemble`` makes of the outcome.
        assemble: runs on the thread pool.
        submitted_at: when, by ``time.monotonic``.
        on_token: called on the engine's thread with (sample index, token) as tokens are drawn; it
            must return at once.
    """

    prompt: NDArray[np.int32]
    future: Future[Any]
    assemble: Callable[[Outcome], Any]
    num_samples: int = 0
    max_tokens: int = 0
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    seed: int = 0
    stop: StopRule = field(default_factory=StopRule)
    prompt_logprobs: bool = False
    topk_prompt_logprobs: int = 0
    prompt_logprobs_from: int = 1
    topk_sample_logprobs: int = 0
    targets: Targets | None = None
    prompt_alt_tokens_k: int = 0
    raw_logprobs: bool = False
    on_token: Callable[[int, int], None] | None = None
    submitted_at: float = field(default_factory=time.monotonic)

    @property
    def scores_prompt(self) -> bool:
        """Whether logits are wanted at other prompt positions than the last."""
        return self._scores_tokens or self.targets is not None or self.prompt_alt_tokens_k > 0

    @property
    def wanted(self) -> Wanted:
        """Which scores are wanted, of a prompt that is scored: all from the first position asked for."""
        n = len(self.prompt)
        limit = n if self.targets is None else self.targets.first
        if self.prompt_alt_tokens_k:
            limit = 1
        first = min(limit, self.prompt_logprobs_from) if self._scores_tokens else limit
        return Wanted(first, limit, self.topk_prompt_logprobs)

    def offers(self, wanted: Wanted) -> bool:
        """Whether the scores that another wants will be among those of this request."""
        own = self.wanted
        return self.scores_prompt and own.first <= wanted.first and own.k >= wanted.k

    @property
    def _scores_tokens(self) -> bool:
        return self.prompt_logprobs or self.topk_prompt_logprobs > 0


class Sequence:
    """Tokens that have, or want, a place in the KV cache.

    Attributes:
        prompt: the request it belongs to.
        index: the sample's number, part of its random stream's key; -1 for the prompt itself.
        id: its KV sequence, -1 while it has none.
        n_computed: how many of its tokens are in that sequence.
        n_settled: how many of those the prefix cache knows.
    """

    __slots__ = ("id", "index", "n_computed", "n_settled", "prompt")

    def __init__(self, prompt: Prompt, index: int) -> None:
        self.prompt = prompt
        self.index = index
        self.id = -1
        self.n_computed = self.n_settled = 0

    @property
    def age(self) -> tuple[int, int]:
        """Greater for what came later."""
        return self.prompt.order, self.index

    @property
    def tokens(self) -> NDArray[np.int32]:
        """All of its tokens, int32."""
        raise NotImplementedError

    @property
    def length(self) -> int:
        """Number of its tokens."""
        raise NotImplementedError

    @property
    def n_remaining(self) -> int:
        """Tokens still to be computed."""
        return self.length - self.n_computed

    @property
    def first_row(self) -> int:
        """Position from which on logits are wanted."""
        return self.length - 1

    @property
    def growth(self) -> int:
        """KV cells it can need beyond those of its present tokens."""
        raise NotImplementedError


class Prompt(Sequence):
    """A request at work: first its prompt is computed, then samples continue it.

    Attributes:
        order: its place in the order of arrival.
        n_cached: tokens that were in the cache when it began.
        began_at, first_token_at: when it began, and first drew a token, by ``time.monotonic``; 0 before.
        scores: of the prompt's tokens; empty unless the request scores them. Row 0 is never filled.
        n_scored: how many tokens, from the first, have all scores that are wanted of them.
        target_logprobs: float32, like the request's ``targets.ids``; 0 where nothing is asked.
        alternatives: the draws at each position but the first.
        row: logits after its last computed token, float32 (n_vocab,), where kept for later.
        snapshot_at: where its state is to be copied for others to start from, 0 for nowhere.
        samples: all of the request's samples, in order.
        ready: those that have drawn their first token and have no sequence.
    """

    def __init__(self, request: Request, order: int = 0) -> None:
        super().__init__(self, -1)
        self.request = request
        self.order = order
        self.n_cached = -1  # not begun
        self.began_at = self.first_token_at = 0.0
        n = len(request.prompt)
        self.scores = Scores.unknown(n if request.scores_prompt else 0, request.topk_prompt_logprobs)
        self.n_scored = request.wanted.first if request.scores_prompt else 0
        self.target_logprobs = (
            None if request.targets is None else np.zeros(len(request.targets.ids), np.float32)
        )
        self.alternatives = (
            Alternatives.unknown(n - 1, request.prompt_alt_tokens_k)
            if request.prompt_alt_tokens_k
            else None
        )
        self.row: NDArray[np.float32] | None = None
        self.snapshot_at = 0
        self.samples = [Sample(self, index) for index in range(request.num_samples)]
        self.ready: deque[Sample] = deque()

    @property
    def tokens(self) -> NDArray[np.int32]:
        """The prompt's tokens, int32."""
        return self.request.prompt

    @property
    def length(self) -> int:
        """Number of the prompt's tokens."""
        return len(self.request.prompt)

    @property
    def first_row(self) -> int:
        """Position from which on logits are wanted: those at i give the scores of token i + 1."""
        return (self.n_scored if self.request.scores_prompt else self.length) - 1

    @property
    def growth(self) -> int:
        """Cells that one of its samples can add."""
        return max(0, self.samples[0].growth) if self.samples else 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to compute for the request."""
        return self.n_remaining == 0 and all(sample.stop_reason for sample in self.samples)


class Sample(Sequence):
    """One continuation being generated.

    Attributes:
        drawn, logprobs: what was drawn so far.
        tops: the most probable tokens in the place of each, if the request asks for them.
        stop_reason: None while it goes on.
    """

    __slots__ = ("_tail", "drawn", "logprobs", "stop_reason", "tops")

    def __init__(self, prompt: Prompt, index: int) -> None:
        super().__init__(prompt, index)
        self.drawn: list[int] = []
        self.logprobs: list[float] = []
        self.tops: list[Top] = []
        self.stop_reason: StopReason | None = None if prompt.request.max_tokens else "length"
        self._tail = b""

    @property
    def tokens(self) -> NDArray[np.int32]:
        """The prompt's tokens and the drawn ones, int32."""
        return np.concatenate([self.prompt.tokens, np.array(self.drawn, np.int32)])

    @property
    def length(self) -> int:
        """Number of tokens so far, which is the position of the next one to draw."""
        return self.prompt.length + len(self.drawn)

    @property
    def growth(self) -> int:
        """Cells it can still add; the last token is never fed back."""
        return self.prompt.request.max_tokens - 1 - len(self.drawn)

    def append(self, token: int, logprob: float, vocabulary: Vocabulary) -> None:
        """Take a drawn token, and stop if it completes the sample.

        ``vocabulary`` tells of a token whether it ends a generation, and its bytes.
        """
        if not self.prompt.first_token_at:
            self.prompt.first_token_at = time.monotonic()
        self.drawn.append(token)
        self.logprobs.append(logprob)
        if self._stops_at(token, vocabulary):
            self.stop_reason = "stop"
        elif len(self.drawn) >= self.prompt.request.max_tokens:
            self.stop_reason = "length"

    def _stops_at(self, token: int, vocabulary: Vocabulary) -> bool:
        rule = self.prompt.request.stop
        if token in rule.tokens:
            return True
        if not rule.end_of_generation and not rule.strings:
            return False
        is_end, piece = vocabulary(token)
        if rule.end_of_generation and is_end:
            return True
        return bool(rule.strings) and self._completes_string(piece, rule.strings)

    def _completes_string(self, piece: bytes, strings: tuple[bytes, ...]) -> bool:
        text = self._tail + piece
        keep = max(map(len, strings)) - 1  # what a later piece could still complete
        self._tail = text[-keep:] if keep else b""
        return any(string in text for string in strings)


@dataclass(frozen=True, slots=True)
class SampleOutcome:
    """A finished sample: int32 tokens and float32 log-probabilities of shape (n,).

    ``topk_ids`` and ``topk_logprobs`` have shape (n, k), and are None where k is 0.
    """

    stop_reason: StopReason
    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    topk_ids: NDArray[np.int32] | None = None
    topk_logprobs: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, sample: Sample) -> SampleOutcome:
        """Collect the outcome of a sample that is done."""
        ids: NDArray[np.int32] | None = None
        logprobs: NDArray[np.float32] | None = None
        if k := sample.prompt.request.topk_sample_logprobs:
            n = len(sample.drawn)
            ids, logprobs = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
            for i, top in enumerate(sample.tops):
                ids[i], logprobs[i] = top
        drawn, drawn_logprobs = np.array(sample.drawn, np.int32), np.array(sample.logprobs, np.float32)
        return cls(sample.stop_reason or "length", drawn, drawn_logprobs, ids, logprobs)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the engine found for a request.

    Attributes:
        samples: the finished samples, in order.
        scores, n_cached, target_logprobs, alternatives: as in ``Prompt``.
        n_prompt: tokens of the prompt.
        queue_wait: seconds from when it was submitted until it began.
        time_to_first_token: seconds until it first drew a token; None if it never did.
    """

    samples: list[SampleOutcome]
    scores: Scores
    n_cached: int
    target_logprobs: NDArray[np.float32] | None = None
    alternatives: Alternatives | None = None
    n_prompt: int = 0
    queue_wait: float = 0.0
    time_to_first_token: float | None = None

    @classmethod
    def of(cls, prompt: Prompt) -> Outcome:
        """Collect the outcome of a request that is done."""
        return cls(
            [SampleOutcome.of(sample) for sample in prompt.samples],
            prompt.scores,
            prompt.n_cached,
            prompt.target_logprobs,
            prompt.alternatives,
            prompt.length,
            prompt.began_at - prompt.request.submitted_at,
            prompt.first_token_at - prompt.request.submitted_at if prompt.first_token_at else None,
        )
