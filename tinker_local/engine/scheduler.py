"""Which tokens go into the next batch, and which sequences and cells each request holds.

First come, first served. A request is admitted when the KV cache has room for its prompt and for one
of its samples in full, so that what was admitted can always finish. Further samples of it start as
room allows. Knows nothing of llama.cpp: it says what to remove, copy and decode, and the engine does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tinker_local.engine.sequence import Prompt, Request, Sample

MIN_CHUNK = 64
"""llama.cpp's flash attention on CPUs runs another kernel below this many tokens, with other
rounding. Longer prompts are never cut into pieces shorter than this, so that their numbers do not
depend on where they were cut."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens ``start`` to ``stop`` of a prompt, next in line."""

    prompt: Prompt
    start: int
    stop: int

    @property
    def is_last(self) -> bool:
        """Whether the prompt is complete after it."""
        return self.stop == len(self.prompt.request.prompt)

    @property
    def n_rows(self) -> int:
        """Rows of logits somebody needs: all if the prompt is scored, else only the last token's."""
        if self.prompt.request.scores_prompt:
            return self.stop - self.start
        return int(self.is_last)


@dataclass(slots=True)
class Step:
    """One ``llama_decode``: first one token of each sample, then the chunks.

    ``removals`` and ``copies`` (source, target) of sequences come before it, in this order.
    """

    removals: list[int] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def prompts(self) -> set[Prompt]:
        """The requests with a part in this step."""
        return {s.prompt for s in self.samples} | {c.prompt for c in self.chunks}


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
    """

    def __init__(self, n_cells: int, n_sequences: int, n_batch: int, n_rows: int) -> None:
        self._n_batch = n_batch
        self._n_rows = n_rows
        self._free_cells = n_cells
        self._free_sequences = list(range(n_sequences - 1, -1, -1))
        self._removals: list[int] = []
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
        step = Step()
        self._fork(step)
        if not self._forking:
            self._admit()
        step.removals, self._removals = self._removals, []
        step.samples = list(self._running)
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
                self._vacate(sample)
        done = [prompt for prompt in step.prompts if prompt.is_done]
        for prompt in done:
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
        self._free_cells += holding.cells
        self._removals += holding.used
        self._free_sequences += holding.used + holding.spare

    def drop_cancelled(self) -> list[Request]:
        """Forget the requests whose future was cancelled, and return them."""
        dropped = [request for request in self._waiting if request.future.cancelled()]
        if dropped:
            self._waiting = deque(r for r in self._waiting if not r.future.cancelled())
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
            request = self._waiting[0]
            cells = len(request.prompt) + request.growth
            n_sequences = 2 if request.num_samples > 1 and request.growth else 1
            if cells > self._free_cells or n_sequences > len(self._free_sequences):
                return
            self._waiting.popleft()
            prompt = Prompt(request, self._free_sequences.pop())
            holding = self._held[prompt] = _Holding(cells, [prompt.sequence])
            if n_sequences == 2:
                holding.spare.append(self._free_sequences.pop())
            self._free_cells -= cells
            self._reading.append(prompt)

    def _finish_reading(self, prompt: Prompt) -> None:
        self._reading.remove(prompt)
        prompt.ready.extend(s for s in prompt.samples if s.stop_reason is None)
        if prompt.ready:
            self._held[prompt].slots = 1
            self._forking.append(prompt)

    def _fork(self, step: Step) -> None:
        """Give sequences to samples that wait for one, as far as there is room."""
        for prompt in list(self._forking):
            holding = self._held[prompt]
            while prompt.ready and (holding.slots or self._add_slot(prompt, holding)):
                holding.slots -= 1
                self._start(prompt.ready.popleft(), holding, step)
            if prompt.ready:
                return  # those behind wait their turn
            self._forking.remove(prompt)

    def _add_slot(self, prompt: Prompt, holding: _Holding) -> bool:
        """Reserve room for one more sample at the same time, if there is any."""
        growth = prompt.request.growth
        needs_sequence = len(prompt.ready) > 1 and not holding.spare
        if growth > self._free_cells or (needs_sequence and not self._free_sequences):
            return False
        if needs_sequence:
            holding.spare.append(self._free_sequences.pop())
        self._free_cells -= growth
        holding.cells += growth
        holding.slots += 1
        return True

    def _start(self, sample: Sample, holding: _Holding, step: Step) -> None:
        prompt = sample.prompt
        if prompt.ready:
            sample.sequence = holding.spare.pop()
            holding.used.append(sample.sequence)
            step.copies.append((prompt.sequence, sample.sequence))
        else:  # the last one takes the prompt's own
            sample.sequence = prompt.sequence
        self._running.append(sample)

    def _vacate(self, sample: Sample) -> None:
        """A sample is finished: its room goes to the next of its request, or back."""
        prompt, holding = sample.prompt, self._held[sample.prompt]
        holding.used.remove(sample.sequence)
        self._removals.append(sample.sequence)
        if prompt.ready:
            holding.spare.append(sample.sequence)
            holding.slots += 1
            return
        growth = prompt.request.growth
        self._free_sequences += [sample.sequence, *holding.spare]
        holding.spare.clear()
        holding.cells -= growth
        self._free_cells += growth

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
    """What one request holds: KV cells, sequences in use and in reserve, and free sample slots."""

    cells: int
    used: list[int]
    spare: list[int] = field(default_factory=list)
    slots: int = 0
