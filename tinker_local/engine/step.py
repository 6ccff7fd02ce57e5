"""One step of the engine: edits of the KV cache, then the tokens of one batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.image import PlacedImage
from tinker_local.engine.sequence import ActiveRequest, Prompt, Sample, Sequence

MIN_CHUNK = 64
"""llama.cpp's flash attention on CPUs runs another kernel below this many tokens, with other
rounding. Longer prompts are never cut into pieces shorter than this, so that their numbers do not
depend on where they were cut."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens ``start`` to ``stop`` of a sequence, next in line to be prefilled: text, or part of one image.

    Attributes:
        tokens: int32 (stop - start,).
        placed: the image, if it is one.
        n_rows: how many of them, from the last, want their row of logits; of an image, only the last.
        is_last: whether the sequence is complete after it.
    """

    sequence: Sequence
    start: int
    stop: int
    tokens: NDArray[np.int32]
    placed: PlacedImage | None
    n_rows: int
    is_last: bool

    @classmethod
    def of(cls, sequence: Sequence, n_tokens: int) -> Chunk:
        """Take the next ``n_tokens`` of a sequence."""
        start = sequence.n_computed
        stop, (end, placed) = start + n_tokens, sequence.next_run
        n_rows = max(0, stop - max(start, sequence.first_row))
        if placed is not None:
            n_rows = min(n_rows, int(stop == end))
        tokens = sequence.tokens[start:stop]
        return cls(sequence, start, stop, tokens, placed, n_rows, stop == sequence.length)


def chunk_length(n_remaining: int, room: int, unit: int = MIN_CHUNK) -> int:
    """Return how many of a prompt's remaining tokens to take when ``room`` are free.

    All of them if they fit; else a multiple of ``unit`` that leaves at least ``unit``.
    """
    if n_remaining <= room:
        return n_remaining
    length = room - room % unit
    return length if n_remaining - length >= unit else max(0, length - unit)


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget a KV sequence."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Let KV sequence ``target`` hold the tokens of ``source`` before position ``end``."""

    source: int
    target: int
    end: int


@dataclass(slots=True)
class Step:
    """The scheduler's plan for one ``llama_decode``, and for one more if there is an image.

    Attributes:
        edits: changes of the KV cache that come before it, in order.
        samples: running samples, each of which decodes its last drawn token.
        chunks: pieces of sequences to prefill, at most one of them of an image. The batch holds the samples
            first, then the chunks of tokens.
        resumed: prompts that start after a token whose logits were cached; nothing is computed for it.
        failed: requests that could not be computed, and why. Whoever runs the step fills it.
        n_sampled: tokens that were drawn, counted by whoever runs the step.
    """

    edits: list[Remove | Copy] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    resumed: list[Prompt] = field(default_factory=list)
    failed: dict[ActiveRequest, Exception] = field(default_factory=dict)
    n_sampled: int = 0

    @property
    def n_prefilled(self) -> int:
        """Tokens of its chunks."""
        return sum(chunk.stop - chunk.start for chunk in self.chunks)

    @property
    def sequences(self) -> list[Sequence]:
        """Sequences that get longer in the KV cache."""
        return [*self.samples, *(chunk.sequence for chunk in self.chunks)]

    @property
    def requests(self) -> set[ActiveRequest]:
        """The requests with a part in this step."""
        return {sequence.owner for sequence in (*self.sequences, *self.resumed)}

    @property
    def image(self) -> Chunk | None:
        """The chunk of an image, which is decoded by itself."""
        return next((chunk for chunk in self.chunks if chunk.placed), None)

    @property
    def text(self) -> Step:
        """The samples and the chunks of tokens."""
        return Step([], self.samples, [chunk for chunk in self.chunks if not chunk.placed])

    def part_of(self, request: ActiveRequest) -> Step:
        """Return the samples and chunks of one request."""
        samples = [sample for sample in self.samples if sample.owner is request]
        return Step([], samples, [chunk for chunk in self.chunks if chunk.sequence.owner is request])

    def leave_out_failed(self) -> None:
        """Take the failed requests out."""
        self.samples = [sample for sample in self.samples if sample.owner not in self.failed]
        self.chunks = [chunk for chunk in self.chunks if chunk.sequence.owner not in self.failed]
        self.resumed = [prompt for prompt in self.resumed if prompt.owner not in self.failed]
