"""A request at work: its prompt, and the samples that continue it.

``ActiveRequest`` owns one ``Prompt`` and any number of ``Sample``. Both are a ``Sequence``: tokens with a
place in the KV cache. ``scheduler.py`` draws the states of sequences, and moves them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.image import PlacedImage
from tinker_local.engine.logit_rule import SampleEdits
from tinker_local.engine.request import Outcome, Request, SampleOutcome
from tinker_local.engine.scores import NO_TOKEN, Alternatives, Scores
from tinker_local.types import StopReason

Vocabulary = Callable[[int], tuple[bool, bytes]]
"""Says of a token whether it ends a generation, and which bytes it stands for."""

Top: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]
"""The most probable tokens in one place, best first, and their log-probabilities: both (k,)."""


class ActiveRequest:
    """A request that has been looked at: first its prompt is prefilled, then its samples are decoded.

    Attributes:
        order: its place in the order of arrival.
        n_cached: prompt tokens that were in the KV cache when it began; -1 before.
        began_at, first_token_at: start and first drawn token, by ``time.monotonic``; 0 before.
        samples: all of them, in order.
        ready: samples without a KV sequence: new ones with their first token drawn, and preempted ones.
    """

    def __init__(self, request: Request, order: int = 0) -> None:
        self.request = request
        self.order = order
        self.n_cached = -1
        self.began_at = self.first_token_at = 0.0
        self.prompt = Prompt(self)
        self.samples = [Sample(self, index) for index in range(request.num_samples)]
        self.ready: deque[Sample] = deque()

    @property
    def sequences(self) -> list[Sequence]:
        """The prompt and the samples."""
        return [self.prompt, *self.samples]

    @property
    def is_new(self) -> bool:
        """Whether it never held a KV sequence."""
        return self.n_cached < 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to compute."""
        return self.prompt.n_remaining == 0 and all(sample.stop_reason for sample in self.samples)

    def begin(self, n_cached: int) -> None:
        """Note when it started, and from how many cached tokens; a preempted one started before."""
        if self.is_new:
            self.n_cached = n_cached
            self.began_at = time.monotonic()

    def outcome(self) -> Outcome:
        """Collect the answer to a request that is done."""
        prompt, submitted_at = self.prompt, self.request.submitted_at
        return Outcome(
            [sample.outcome() for sample in self.samples],
            prompt.scores,
            self.n_cached,
            prompt.target_logprobs,
            prompt.alternatives,
            len(self.request.prompt),
            self.began_at - submitted_at,
            self.first_token_at - submitted_at if self.first_token_at else None,
        )


class Sequence:
    """Tokens that have, or want, a place in the KV cache.

    Attributes:
        owner: the request it belongs to, at work.
        request: the client's request.
        index: the sample's number, part of its random stream's key; -1 for the prompt.
        id: its KV sequence (``llama_seq_id``), -1 while it has none.
        n_computed: how many of its tokens are in that KV sequence.
        n_committed: how many of those the prefix cache knows.
        snapshot_at: position at which its state is copied for others to start from, 0 for none.
        is_scored: whether logits are wanted before its last token.
    """

    __slots__ = ("id", "index", "n_committed", "n_computed", "owner", "request")
    snapshot_at = 0
    is_scored = False

    def __init__(self, owner: ActiveRequest, index: int) -> None:
        self.owner, self.request = owner, owner.request
        self.index = index
        self.id = -1
        self.n_computed = self.n_committed = 0

    @property
    def age(self) -> tuple[int, int]:
        """Sort key: greater for what came later."""
        return self.owner.order, self.index

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
    def position(self) -> int:
        """The position of its next token."""
        request = self.request
        return request.position(self.n_computed) if request.images else self.n_computed

    @property
    def next_run(self) -> tuple[int, PlacedImage | None]:
        """Where the tokens or the image end that are computed next, and that image."""
        for placed in self.request.images:
            if self.n_computed < placed.start:
                return min(placed.start, self.length), None
            if self.n_computed < placed.stop:
                return placed.stop, placed
        return self.length, None

    def has_image(self, start: int, stop: int) -> bool:
        """Whether an image ends within tokens ``start`` to ``stop``."""
        return any(start < placed.stop <= stop for placed in self.request.images)

    def without_part(self, n_cells: int) -> int:
        """Return ``n_cells``, or as many as there are before the image that these cells would cut."""
        cut = (placed.start for placed in self.request.images if placed.start < n_cells < placed.stop)
        return next(cut, n_cells)

    @property
    def first_row(self) -> int:
        """Number of the first token whose logits are wanted."""
        return self.length - 1

    @property
    def growth(self) -> int:
        """KV cells it can need beyond those of its present tokens."""
        raise NotImplementedError

    @property
    def drawing(self) -> list[Sample]:
        """Samples whose next token is drawn from the logits after its last token."""
        raise NotImplementedError


class Prompt(Sequence):
    """The prompt of a request.

    Attributes:
        scores: of its tokens; empty unless the request scores them. Row 0 is never filled.
        n_scored: how many tokens, from the first, have all scores that are wanted of them.
        target_logprobs: float32, like the request's ``targets.ids``; 0 where nothing is asked.
        alternatives: tokens drawn at each position but the first.
        last_logits: logits after its last computed token, float32 (n_vocab,), where they are kept.
    """

    def __init__(self, owner: ActiveRequest) -> None:
        super().__init__(owner, -1)
        request, n = owner.request, len(owner.request.prompt)
        k = request.prompt_alt_tokens_k
        self.is_scored = request.scores_prompt
        self.scores = Scores.unknown(n if self.is_scored else 0, request.topk_prompt_logprobs)
        self.n_scored = request.wanted.first if self.is_scored else 0
        self.target_logprobs = (
            None if request.targets is None else np.zeros(len(request.targets.ids), np.float32)
        )
        self.alternatives = Alternatives.unknown(n - 1, k) if k else None
        if self.alternatives is not None:
            for placed in request.images:
                self.alternatives.tokens[max(0, placed.start - 1) : placed.stop - 1] = NO_TOKEN
        self.last_logits: NDArray[np.float32] | None = None
        self.snapshot_at = 0

    @property
    def tokens(self) -> NDArray[np.int32]:
        """The prompt's tokens that are computed, int32."""
        return self.request.prompt[: self.request.n_read]

    @property
    def length(self) -> int:
        """Number of the prompt's tokens that are computed."""
        return self.request.n_read

    @property
    def first_row(self) -> int:
        """Number of the first token whose logits are wanted: those at i give the scores of token i + 1."""
        return (self.n_scored if self.is_scored else self.length) - 1

    @property
    def growth(self) -> int:
        """Cells that one of its samples can add."""
        samples = self.owner.samples
        return max(0, samples[0].growth) if samples else 0

    @property
    def drawing(self) -> list[Sample]:
        """The samples that have not drawn their first token."""
        return [sample for sample in self.owner.samples if not (sample.drawn or sample.stop_reason)]


class Sample(Sequence):
    """One continuation being generated.

    Attributes:
        drawn, logprobs: the tokens drawn so far, and their log-probabilities.
        tops: the most probable tokens in the place of each, if the request asks for them.
        edits: of the logits of its next token; None where the request changes none. They outlive a
            preemption, as the drawn tokens do.
        stop_reason: None while it goes on.
    """

    __slots__ = ("_tail", "drawn", "edits", "logprobs", "stop_reason", "tops")

    def __init__(self, owner: ActiveRequest, index: int) -> None:
        super().__init__(owner, index)
        self.drawn: list[int] = []
        self.logprobs: list[float] = []
        self.tops: list[Top] = []
        rule = owner.request.logit_rule
        self.edits = None if rule is None else SampleEdits(rule)
        self.stop_reason: StopReason | None = None if owner.request.max_tokens else "length"
        self._tail = b""  # the last drawn bytes, which a stop string may have begun in

    @property
    def prompt(self) -> Prompt:
        """The prompt it continues."""
        return self.owner.prompt

    @property
    def tokens(self) -> NDArray[np.int32]:
        """The prompt's tokens and the drawn ones, int32."""
        return np.concatenate([self.request.prompt, np.array(self.drawn, np.int32)])

    @property
    def length(self) -> int:
        """Number of tokens so far, which is the number of the next one to draw."""
        return self.prompt.length + len(self.drawn)

    @property
    def growth(self) -> int:
        """Cells it can still add; the last token is never fed back."""
        return self.request.max_tokens - 1 - len(self.drawn)

    @property
    def drawing(self) -> list[Sample]:
        """The sample itself."""
        return [self]

    def append(self, token: int, logprob: float, vocabulary: Vocabulary) -> None:
        """Take a drawn token, and stop if it completes the sample."""
        if not self.owner.first_token_at:
            self.owner.first_token_at = time.monotonic()
        self.drawn.append(token)
        self.logprobs.append(logprob)
        if self.edits is not None:
            self.edits.notice(token)
        if self._stops_at(token, vocabulary):
            self.stop_reason = "stop"
        elif len(self.drawn) >= self.request.max_tokens:
            self.stop_reason = "length"

    def outcome(self) -> SampleOutcome:
        """Collect the outcome of a sample that is done."""
        ids: NDArray[np.int32] | None = None
        logprobs: NDArray[np.float32] | None = None
        if k := self.request.topk_sample_logprobs:
            n = len(self.drawn)
            ids, logprobs = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
            for i, top in enumerate(self.tops):
                ids[i], logprobs[i] = top
        drawn, drawn_logprobs = np.array(self.drawn, np.int32), np.array(self.logprobs, np.float32)
        return SampleOutcome(self.stop_reason or "length", drawn, drawn_logprobs, ids, logprobs)

    def _stops_at(self, token: int, vocabulary: Vocabulary) -> bool:
        rule = self.request.stop
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
