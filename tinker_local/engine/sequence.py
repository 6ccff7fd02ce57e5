"""The state of one request: a prompt being read, and the samples that continue it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinker_local.types import StopReason

Vocabulary = Callable[[int], tuple[bool, bytes]]


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
        raw_logprobs: report the plain model's log-probabilities of sampled tokens instead of those of
            the distribution they were drawn from.
        future: resolved with what ``assemble`` makes of the outcome.
        assemble: runs on the thread pool.
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
    raw_logprobs: bool = False
    on_token: Callable[[int, int], None] | None = None

    @property
    def scores_prompt(self) -> bool:
        """Whether logits are wanted at every prompt position."""
        return self.prompt_logprobs or self.topk_prompt_logprobs > 0

    @property
    def growth(self) -> int:
        """KV cells one sample can add to the prompt's: its last token is never fed back."""
        return max(0, self.max_tokens - 1)


class Prompt:
    """A request's prompt in the KV cache, evaluated chunk by chunk.

    Attributes:
        sequence: the KV sequence that holds it.
        n_cached: tokens that were in the cache already.
        n_evaluated: tokens that are in the cache.
        logprobs: float32 (n,), NaN where not scored; empty unless the request scores its prompt.
        topk_ids, topk_logprobs: int32 and float32 (n, k), likewise; row 0 is never filled.
        samples: all of the request's samples, in order.
        ready: samples that have drawn their first token and wait for a sequence of their own.
    """

    def __init__(
        self, request: Request, sequence: int, n_cached: int = 0, known: NDArray[np.float32] | None = None
    ) -> None:
        """``known``: log-probabilities of the first tokens, if the prompt is scored."""
        self.request = request
        self.sequence = sequence
        self.n_cached = self.n_evaluated = n_cached
        self.samples = [Sample(self, index) for index in range(request.num_samples)]
        self.ready: deque[Sample] = deque()
        length, k = len(request.prompt), request.topk_prompt_logprobs
        scored = length if request.scores_prompt else 0
        self.logprobs = np.full(scored, np.nan, np.float32)
        if known is not None:
            self.logprobs[: len(known)] = known
        self.topk_ids = np.zeros((scored, k), np.int32)
        self.topk_logprobs = np.zeros((scored, k), np.float32)

    @property
    def n_remaining(self) -> int:
        """Tokens still to be evaluated."""
        return len(self.request.prompt) - self.n_evaluated

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to compute for the request."""
        return self.n_remaining == 0 and all(sample.stop_reason for sample in self.samples)


class Sample:
    """One continuation being generated.

    Attributes:
        index: its number in the request; part of its random stream's key.
        sequence: its KV sequence, -1 until it has one.
        tokens, logprobs: what was drawn so far.
        stop_reason: None while it goes on.
    """

    __slots__ = ("_tail", "index", "logprobs", "prompt", "sequence", "stop_reason", "tokens")

    def __init__(self, prompt: Prompt, index: int) -> None:
        self.prompt = prompt
        self.index = index
        self.sequence = -1
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.stop_reason: StopReason | None = None if prompt.request.max_tokens else "length"
        self._tail = b""

    @property
    def position(self) -> int:
        """Position of the next token to draw; the last drawn one is fed at ``position - 1``."""
        return len(self.prompt.request.prompt) + len(self.tokens)

    def append(self, token: int, logprob: float, vocabulary: Vocabulary) -> None:
        """Take a drawn token, and stop if it completes the sample.

        ``vocabulary`` tells of a token whether it ends a generation, and its bytes.
        """
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if self._stops_at(token, vocabulary):
            self.stop_reason = "stop"
        elif len(self.tokens) >= self.prompt.request.max_tokens:
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
    """A finished sample: int32 tokens and float32 log-probabilities of shape (n,)."""

    stop_reason: StopReason
    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the engine found for a request; arrays as in ``Prompt`` and ``Sample``."""

    samples: list[SampleOutcome]
    logprobs: NDArray[np.float32]
    topk_ids: NDArray[np.int32]
    topk_logprobs: NDArray[np.float32]
    n_cached: int

    @classmethod
    def of(cls, prompt: Prompt) -> Outcome:
        """Collect the outcome of a request that is done."""
        samples = [
            SampleOutcome(
                sample.stop_reason or "length",
                np.array(sample.tokens, np.int32),
                np.array(sample.logprobs, np.float32),
            )
            for sample in prompt.samples
        ]
        return cls(samples, prompt.logprobs, prompt.topk_ids, prompt.topk_logprobs, prompt.n_cached)
