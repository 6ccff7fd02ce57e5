"""Which tokens go into the next batch, and which sequences and cells each request holds.

First come, first served. A request is admitted when the KV cache has room for its prompt and for one
of its samples in full, so that what was admitted can always finish. Further samples of it start as
room allows. If prefixes are kept, what is finished stays in the cache until the room is needed. Knows
nothing of llama.cpp: it says what to remove, copy and decode, and the engine does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.prefix_cache import Match, PrefixCache, common_prefix
from tinker_local.engine.sequence import Prompt, Request, Sample
from tinker_local.engine.step import Chunk, Copy, Remove, Step

MIN_CHUNK = 64
"""llama.cpp's flash attention on CPUs runs another kernel below this many tokens, with other
rounding. Longer prompts are never cut into pieces shorter than this, so that their numbers do not
depend on where they were cut."""


def chunk_length(n_remaining: int, room: int) -> int:
    """Return how many of a prompt's remaining tokens to take when ``room`` are free.

    All of them if they fit; else a multiple of ``MIN_CHUNK`` that leaves at least ``MIN_CHUNK``.
    """
    if n_remaining <= room:
        return n_remaining
    length = room - room % MIN_CHUNK
    return length if n_remaining - length >= MIN_CHUNK else max(0, length - MIN_CHUNK)


class Scheduler:
    """Queues of requests, and the account of sequences and KV cells.

    Args:
        n_cells: cells of the KV cache.
        n_sequences: sequences the context can tell apart.
        n_batch: most tokens of a step.
        n_rows: most rows of logits of a step.
        keeps_prefixes: finished sequences stay for later requests to start from.
        whole_only: sequences can only be copied as a whole (recurrent and hybrid models).
    """

    def __init__(
        self,
        n_cells: int,
        n_sequences: int,
        n_batch: int,
        n_rows: int,
        *,
        keeps_prefixes: bool = False,
        whole_only: bool = False,
    ) -> None:
        self._n_cells = n_cells
        self._n_batch = n_batch
        self._n_rows = n_rows
        self._keeps_prefixes = keeps_prefixes
        self._whole_only = whole_only
        self._cache = PrefixCache(whole_only=whole_only)
        self._reserved = 0  # cells promised to requests and not in the cache yet
        self._free_sequences = list(range(n_sequences - 1, -1, -1))
        self._edits: list[Remove | Copy] = []
        self._waiting: deque[Request] = deque()
        self._reading: list[Prompt] = []  # admitted, their tokens not all evaluated
        self._forking: list[Prompt] = []  # evaluated, with samples that have no sequence yet
        self._running: list[Sample] = []
        self._held: dict[Prompt, _Holding] = {}

    @property
    def has_work(self) -> bool:
        """Whether a step would compute anything."""
        return bool(self._waiting or self._held)

    def add(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request)

    def schedule(self) -> Step:
        """Start what has room, and choose the next step's tokens."""
        self._fork()
        if not self._forking:
            self._admit()
        step = Step(edits=self._edits, samples=list(self._running))
        self._edits = []
        self._take_chunks(step)
        return step

    def advance(self, step: Step) -> list[Prompt]:
        """Account for a decoded step whose tokens have been drawn; return the finished requests."""
        for chunk in step.chunks:
            chunk.prompt.n_evaluated = chunk.stop
            if chunk.is_last:
                self._finish_reading(chunk.prompt)
        for sample in step.samples:
            if sample.stop_reason:
                self._running.remove(sample)
                self._finish_sample(sample)
        done = [prompt for prompt in step.prompts if prompt.is_done]
        for prompt in done:
            self._rest_all(prompt)
            self.release(prompt)
        return done

    def release(self, prompt: Prompt) -> None:
        """Take back everything a request holds, finished or not."""
        holding = self._held.pop(prompt, None)
        if holding is None:
            return
        self._reading = [p for p in self._reading if p is not prompt]
        self._forking = [p for p in self._forking if p is not prompt]
        self._running = [s for s in self._running if s.prompt is not prompt]
        self._reserved -= holding.cells
        for sequence in holding.used:
            self._cache.remove(sequence)
            self._free(sequence)
        self._free_sequences += holding.spare

    def drop_cancelled(self) -> list[Request]:
        """Forget the requests whose future was cancelled, and return them."""
        dropped: list[Request] = []
        waiting: deque[Request] = deque()
        for request in self._waiting:  # asked once each: another thread may be cancelling just now
            (dropped if request.future.cancelled() else waiting).append(request)
        self._waiting = waiting
        for prompt in [p for p in self._held if p.request.future.cancelled()]:
            self.release(prompt)
            dropped.append(prompt.request)
        return dropped

    def clear(self) -> list[Request]:
        """Forget all requests, and return them."""
        dropped = [prompt.request for prompt in self._held] + list(self._waiting)
        for prompt in list(self._held):
            self.release(prompt)
        self._waiting.clear()
        return dropped

    def _admit(self) -> None:
        while self._waiting:
            prompt = self._place(self._waiting[0])
            if prompt is None:
                return
            self._waiting.popleft()
            self._reading.append(prompt)

    def _place(self, request: Request) -> Prompt | None:
        """Hold what a request needs to start; None if it has to wait."""
        forks = request.num_samples > 1 and request.growth > 0
        if not self._find_sequences(2 if forks else 1):
            return None
        match, known = self._usable_prefix(request)
        if self._is_being_read(request, match.length):
            return None
        prompt = Prompt(request, self._free_sequences.pop(), match.length, known)
        cells = prompt.n_remaining + request.growth
        if not self._attach(prompt.sequence, match, cells):
            return None
        holding = self._held[prompt] = _Holding(cells, [prompt.sequence])
        self._reserved += cells
        if forks:
            holding.spare.append(self._free_sequences.pop())
        return prompt

    def _attach(self, sequence: int, match: Match, n_more: int) -> bool:
        """Start a sequence from a cached prefix if there is room for ``n_more`` cells besides."""
        source = self._cache.attach(sequence, match)
        copy = Copy(source, sequence, match.length)
        self._edits.append(copy)  # before what makes room, which may be its source
        enough = self._find_cells(n_more)
        if not enough:
            self._cache.remove(sequence)
            self._free_sequences.append(sequence)
        if not enough or match.length == 0:
            self._edits.remove(copy)
        return enough

    def _usable_prefix(self, request: Request) -> tuple[Match, NDArray[np.float32]]:
        """Return the cached prefix to start from, and the log-probabilities known from before.

        At least the last token is computed again, for its row of logits. Where the prompt is scored,
        so is the last token that has a known log-probability, for that of the next.
        """
        tokens, nothing = request.prompt, np.empty(0, np.float32)
        scored = request.scores_prompt
        if not self._keeps_prefixes or request.topk_prompt_logprobs or (scored and self._whole_only):
            return self._cache.match(tokens[:0]), nothing
        if not scored:
            return self._cache.match(tokens[:-1]), nothing
        match = self._cache.match(tokens, scored=True)
        return self._cache.shortened(match, max(0, match.length - 1)), self._cache.logprobs(match)

    def _is_being_read(self, request: Request, n_cached: int) -> bool:
        """Whether a prompt that is being read will soon offer a much longer prefix."""
        if not self._keeps_prefixes or request.topk_prompt_logprobs or self._whole_only:
            return False
        return any(
            common_prefix(other.request.prompt, request.prompt) >= n_cached + MIN_CHUNK
            and (other.request.scores_prompt or not request.scores_prompt)
            for other in self._reading
        )

    def _find_cells(self, n: int) -> bool:
        """Make ``n`` cells free, at the expense of what is only cached."""
        while self._n_cells - self._cache.n_cells - self._reserved < n:
            if not self._evict():
                return False
        return True

    def _find_sequences(self, n: int) -> bool:
        while len(self._free_sequences) < n:
            if not self._evict():
                return False
        return True

    def _evict(self) -> bool:
        sequence = self._cache.evict()
        if sequence is None:
            return False
        self._free(sequence)
        return True

    def _free(self, sequence: int) -> None:
        self._edits.append(Remove(sequence))
        self._free_sequences.append(sequence)

    def _finish_reading(self, prompt: Prompt) -> None:
        self._reading.remove(prompt)
        tokens = prompt.request.prompt[prompt.n_cached :]
        logprobs = prompt.logprobs[prompt.n_cached :] if prompt.request.scores_prompt else None
        self._settle(prompt, prompt.sequence, tokens, logprobs)
        prompt.ready.extend(s for s in prompt.samples if s.stop_reason is None)
        if prompt.ready:
            self._held[prompt].slots = 1
            self._forking.append(prompt)

    def _settle(
        self, prompt: Prompt, sequence: int, tokens: NDArray[np.int32], logprobs: NDArray[np.float32] | None
    ) -> None:
        """Cells that were reserved are filled: the cache counts them from now on."""
        self._cache.extend(sequence, tokens, logprobs)
        self._held[prompt].cells -= len(tokens)
        self._reserved -= len(tokens)

    def _fork(self) -> None:
        """Give sequences to samples that wait for one, as far as there is room."""
        for prompt in list(self._forking):
            holding = self._held[prompt]
            while prompt.ready and (holding.slots or self._add_slot(prompt, holding)):
                holding.slots -= 1
                self._start(prompt.ready.popleft(), holding)
            if prompt.ready:
                return  # those behind wait their turn
            self._forking.remove(prompt)

    def _add_slot(self, prompt: Prompt, holding: _Holding) -> bool:
        """Reserve room for one more sample at the same time, if there is any."""
        needs_sequence = len(prompt.ready) > 1 and not holding.spare
        if needs_sequence and not self._find_sequences(1):
            return False
        growth = prompt.request.growth
        if not self._find_cells(growth):
            return False
        if needs_sequence:
            holding.spare.append(self._free_sequences.pop())
        self._reserved += growth
        holding.cells += growth
        holding.slots += 1
        return True

    def _start(self, sample: Sample, holding: _Holding) -> None:
        prompt = sample.prompt
        if prompt.ready:
            sample.sequence = holding.spare.pop()
            holding.used.append(sample.sequence)
            self._cache.attach(sample.sequence, self._cache.whole(prompt.sequence))
            self._edits.append(Copy(prompt.sequence, sample.sequence, len(prompt.request.prompt)))
        else:  # the last one takes the prompt's own
            sample.sequence = prompt.sequence
        self._running.append(sample)

    def _finish_sample(self, sample: Sample) -> None:
        """Its tokens stay cached; its room goes to the next sample of its request, or back."""
        prompt, holding = sample.prompt, self._held[sample.prompt]
        fed = np.array(sample.tokens[:-1], np.int32)
        self._settle(prompt, sample.sequence, fed, None)
        unused = prompt.request.growth - len(fed)
        holding.cells -= unused
        self._reserved -= unused
        self._rest(sample.sequence, holding)
        if not prompt.ready:
            self._free_sequences += holding.spare
            holding.spare.clear()

    def _rest_all(self, prompt: Prompt) -> None:
        """Keep what a finished request still holds for later ones."""
        holding = self._held[prompt]
        for sequence in list(holding.used):
            self._rest(sequence, holding)

    def _rest(self, sequence: int, holding: _Holding) -> None:
        holding.used.remove(sequence)
        if not (self._keeps_prefixes and self._cache.rest(sequence)):
            self._cache.remove(sequence)
            self._free(sequence)

    def _take_chunks(self, step: Step) -> None:
        room = self._n_batch - len(step.samples)
        rows = self._n_rows - len(step.samples)
        for prompt in self._reading:
            scored = prompt.request.scores_prompt
            length = chunk_length(prompt.n_remaining, min(room, rows) if scored else room)
            if length == 0 or rows == 0:
                return
            chunk = Chunk(prompt, prompt.n_evaluated, prompt.n_evaluated + length)
            step.chunks.append(chunk)
            room -= length
            rows -= chunk.n_rows


@dataclass(slots=True)
class _Holding:
    """What one request holds: cells promised to it, sequences in use and in reserve, sample slots."""

    cells: int
    used: list[int]
    spare: list[int] = field(default_factory=list)
    slots: int = 0
