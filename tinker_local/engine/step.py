"""One step of the engine: what changes in the KV cache, then which tokens are decoded."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.sequence import Prompt, Sample, Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens ``start`` to ``stop`` of a sequence, next in line.

    Attributes:
        tokens: int32 (stop - start,).
        n_rows: how many of them, from the last, want their row of logits.
        is_last: whether the sequence is complete after it.
    """

    sequence: Sequence
    start: int
    stop: int
    tokens: NDArray[np.int32]
    n_rows: int
    is_last: bool

    @classmethod
    def of(cls, sequence: Sequence, n_tokens: int) -> Chunk:
        """The next ``n_tokens`` of a sequence."""
        start = sequence.n_computed
        stop = start + n_tokens
        n_rows = max(0, stop - max(start, sequence.first_row))
        return cls(sequence, start, stop, sequence.tokens[start:stop], n_rows, stop == sequence.length)


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget a sequence."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Make ``target`` hold the first ``length`` tokens of ``source``."""

    source: int
    target: int
    length: int


@dataclass(slots=True)
class Step:
    """One ``llama_decode``: first one token of each sample, then the chunks.

    ``edits`` of the cache come before it, in their order. The prompts in ``kept`` start after a
    token whose row of logits was kept, so that nothing is computed for it. Whoever runs it notes in
    ``failed`` the requests that could not be computed, and why.
    """

    edits: list[Remove | Copy] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    kept: list[Prompt] = field(default_factory=list)
    failed: dict[Prompt, Exception] = field(default_factory=dict)

    @property
    def sequences(self) -> list[Sequence]:
        """Those that get longer."""
        return [*self.samples, *(chunk.sequence for chunk in self.chunks)]

    @property
    def prompts(self) -> set[Prompt]:
        """The requests with a part in this step."""
        return {sequence.prompt for sequence in (*self.sequences, *self.kept)}

    def part_of(self, prompt: Prompt) -> Step:
        """Return what a request has in it to decode."""
        samples = [sample for sample in self.samples if sample.prompt is prompt]
        return Step([], samples, [chunk for chunk in self.chunks if chunk.sequence.prompt is prompt])

    def leave_out_failed(self) -> None:
        """Take the requests out that failed."""
        self.samples = [sample for sample in self.samples if sample.prompt not in self.failed]
        self.chunks = [chunk for chunk in self.chunks if chunk.sequence.prompt not in self.failed]
        self.kept = [prompt for prompt in self.kept if prompt not in self.failed]
