"""Which tokens go into the next batch, and which sequences and cells each request holds.

First come, first served. What starts is given room for its tokens and for some growth; when the cells
run out all the same, cached prefixes go first, then the youngest is paused and later computed again
from what is still cached. The oldest always goes on, so everything finishes. Knows nothing of llama.cpp:
it says what to remove, copy and decode, and the engine does.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import deque

from tinker_local.engine.cells import Cells, Start, start_of_prompt, start_of_sample
from tinker_local.engine.prefix_cache import common_prefix
from tinker_local.engine.sequence import Prompt, Request, Sample, Sequence
from tinker_local.engine.step import Chunk, Step

MIN_CHUNK = 64
"""llama.cpp's flash attention on CPUs runs another kernel below this many tokens, with other
rounding. Longer prompts are never cut into pieces shorter than this, so that their numbers do not
depend on where they were cut."""

HEADROOM = 128
"""Cells left for each running sample to grow into before another one starts: enough that pausing is
rare, few enough that a large ``max_tokens`` does not keep others waiting."""

N_NEIGHBOURS = 16
"""Waiting requests that are looked at for a prefix worth a snapshot."""


def chunk_length(n_remaining: int, room: int, unit: int = MIN_CHUNK) -> int:
    """Return how many of a prompt's remaining tokens to take when ``room`` are free.

    All of them if they fit; else a multiple of ``unit`` that leaves at least ``unit``.
    """
    if n_remaining <= room:
        return n_remaining
    length = room - room % unit
    return length if n_remaining - length >= unit else max(0, length - unit)


class Scheduler:
    """Queues of requests, and who gets which room when.

    Args:
        n_cells: cells of the KV cache.
        n_sequences: sequences the context can tell apart.
        n_batch: most tokens of a step.
        n_rows: most rows of logits of a step.
        keeps_prefixes: finished sequences stay for later requests to start from.
        whole_only: sequences can only be copied as a whole (recurrent and hybrid models).
        apart: samples and chunks are decoded apart from each other, and come out in the same bits
            whatever is cached.
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
        apart: bool = False,
    ) -> None:
        self._apart = apart
        self._unit = min(MIN_CHUNK, n_batch // 3)  # so that two always fit
        self._n_batch = n_batch
        self._n_rows = n_rows
        self._keeps_prefixes = keeps_prefixes
        self._whole_only = whole_only
        self._cells = Cells(n_cells, n_sequences, keeps_prefixes=keeps_prefixes, whole_only=whole_only)
        self._kept: list[Prompt] = []  # begun after a row that was kept, in the coming step
        self._n_requests = 0
        self._next: Prompt | None = None  # the first that waits, once it was looked at
        self._waiting: deque[Request] = deque()
        self._active: dict[Prompt, None] = {}  # oldest first
        self._unplaced: list[Prompt] = []  # active, with a part that has no sequence; oldest first
        self._reading: list[Sequence] = []  # with more than a token to compute; oldest first
        self._running: list[Sample] = []

    @property
    def has_work(self) -> bool:
        """Whether a step would compute anything."""
        return bool(self._waiting or self._active)

    @property
    def n_waiting(self) -> int:
        """Requests that wait for room, in whole or in part."""
        return len(self._waiting) + len(self._unplaced)

    def add(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request)

    def schedule(self) -> Step:
        """Start what has room, and choose the next step's tokens."""
        self._place()
        self._make_free(0)
        step = Step()
        self._take_chunks(step)
        step.kept = [p for p in self._kept if p.id >= 0 or p.n_remaining == 0]  # not paused since
        step.samples, step.edits = list(self._running), self._cells.take_edits()
        self._kept = []
        return step

    def advance(self, step: Step) -> list[Prompt]:
        """Account for a decoded step whose tokens have been drawn; return the finished requests."""
        for prompt in step.kept:
            if prompt.n_remaining == 0:
                self._finish_reading(prompt)
        for chunk in step.chunks:
            self._advance_reading(chunk)
        for sample in step.samples:
            self._cells.advance(sample, sample.n_remaining - 1)  # the last drawn is still to be computed
            if sample.stop_reason:
                self._running.remove(sample)
                self._cells.rest(sample)
        done = [prompt for prompt in step.prompts if prompt.is_done]
        for prompt in done:
            self.release(prompt)
        if not (self._active or self._keeps_prefixes):
            self._cells.forget_prefixes()
        return done

    def release(self, prompt: Prompt) -> bool:
        """Take back everything a request holds, finished or not. False if it was released before."""
        if prompt not in self._active:
            return False
        del self._active[prompt]
        self._unplaced = [p for p in self._unplaced if p is not prompt]
        self._reading = [s for s in self._reading if s.prompt is not prompt]
        self._running = [s for s in self._running if s.prompt is not prompt]
        for sequence in (prompt, *prompt.samples):
            if sequence.id >= 0:
                self._cells.drop(sequence)
        return True

    def drop_cancelled(self) -> list[Request]:
        """Forget the requests whose future was cancelled, and return them."""
        dropped: list[Request] = []
        waiting: deque[Request] = deque()
        for request in self._waiting:  # asked once each: another thread may be cancelling just now
            (dropped if request.future.cancelled() else waiting).append(request)
        self._waiting = waiting
        for prompt in [p for p in self._active if p.request.future.cancelled()]:
            self.release(prompt)
            dropped.append(prompt.request)
        return dropped

    def forget_prefixes(self) -> None:
        """Forget all that is only cached."""
        self._cells.forget_prefixes()

    @property
    def requests(self) -> list[Request]:
        """All that are not finished."""
        return [prompt.request for prompt in self._active] + list(self._waiting)

    def clear(self) -> list[Request]:
        """Forget all requests, and return them."""
        dropped = self.requests
        for prompt in list(self._active):
            self.release(prompt)
        self._waiting.clear()
        return dropped

    # -- starting -------------------------------------------------------------------------------

    def _place(self) -> None:
        """Give sequences to what has none: first the active requests, then those that wait."""
        while self._unplaced:
            if not self._place_parts(self._unplaced[0]):
                return
            self._unplaced.pop(0)
        while self._waiting:
            prompt = self._next_prompt()
            if not self._start_prompt(prompt):
                return
            self._waiting.popleft()
            self._active[prompt] = None

    def _next_prompt(self) -> Prompt:
        request = self._waiting[0]
        if self._next is None or self._next.request is not request:
            self._next = Prompt(request, self._n_requests)
            self._n_requests += 1
        self._plan_snapshot(self._next)
        return self._next

    def _place_parts(self, prompt: Prompt) -> bool:
        if not prompt.ready:  # paused while it was read
            return self._start_prompt(prompt)
        while prompt.ready:
            if self._start_sample(prompt.ready[0]):
                prompt.ready.popleft()
            elif self._running or self._reading or not self._pause_youngest():
                return False
        if prompt.id >= 0:
            self._cells.rest(prompt)
        return True

    def _start_prompt(self, prompt: Prompt) -> bool:
        if not self._cells.find_id():
            return False
        start = self._find_start(prompt)
        if self._is_being_read(prompt, start.match.length):
            return False
        n_scored = max(prompt.n_scored, start.n_scored)
        complete = prompt.request.scores_prompt and n_scored == prompt.length and not prompt.samples
        if not complete and not self._attach(prompt, start):
            return False
        prompt.scores.write(start.scores)
        prompt.n_scored = n_scored
        if prompt.n_cached < 0:
            prompt.n_cached = start.match.length
            prompt.began_at = time.monotonic()
        if complete:
            prompt.n_computed = prompt.n_settled = prompt.length
        if complete or start.row is not None:
            prompt.row = start.row
            self._kept.append(prompt)
        if prompt.n_remaining:
            insort(self._reading, prompt, key=_age)
        return True

    def _start_sample(self, sample: Sample) -> bool:
        prompt = sample.prompt
        if self._takes_over(sample):
            if not self._has_room(sample, prompt.length, 0):
                return False
            self._cells.take_over(sample)
        else:
            if not self._cells.find_id():
                return False
            start = self._find_start(sample)
            if self._is_being_read(sample, start.match.length) or not self._attach(sample, start):
                return False
        if sample.n_remaining == 1:
            self._running.append(sample)
        else:
            insort(self._reading, sample, key=_age)
        return True

    def _takes_over(self, sample: Sample) -> bool:
        """Whether a sample goes on in its prompt's own sequence, since nobody else needs it."""
        prompt = sample.prompt
        if prompt.id < 0 or len(prompt.ready) > 1 or len(sample.drawn) > 1:
            return False
        return not (self._whole_only and self._keeps_prefixes and self._cells.has_free_id)

    def _find_start(self, sequence: Sequence) -> Start:
        if isinstance(sequence, Sample):
            return start_of_sample(self._cells.cache, sequence)
        assert isinstance(sequence, Prompt)
        is_new = sequence.n_cached < 0
        if is_new and not self._keeps_prefixes:
            return Start(self._cells.cache.nothing)
        start = start_of_prompt(self._cells.cache, sequence)
        if not is_new or 2 * start.match.length >= sequence.length:
            return start
        is_alone = not (self._active or self._apart) and len(self._waiting) == 1
        if sequence.request.scores_prompt and is_alone and sequence.request.wanted.first == 1:
            self._cells.forget_prefixes()  # a score that shares little is that of the model run alone
            return Start(self._cells.cache.nothing)
        return start if start.match.length >= MIN_CHUNK else Start(self._cells.cache.nothing)

    def _is_being_read(self, sequence: Sequence, n_cached: int) -> bool:
        """Whether another that is being read will soon offer a much longer prefix."""
        if isinstance(sequence, Prompt) and not self._keeps_prefixes:
            return False
        return any(
            n_cached + MIN_CHUNK <= self._n_to_share(other, sequence) > other.n_computed
            for other in self._reading
        )

    def _n_to_share(self, other: Sequence, sequence: Sequence) -> int:
        """Tokens that ``sequence`` could start from when ``other`` has computed them."""
        n_shared = common_prefix(other.tokens, sequence.tokens)
        if isinstance(sequence, Prompt) and sequence.request.scores_prompt:
            wanted = sequence.request.wanted
            offers = isinstance(other, Prompt) and other.request.offers(wanted)
            n_shared = min(n_shared, wanted.limit if offers else wanted.first - 1)
        if not self._whole_only:
            return n_shared
        return other.snapshot_at if isinstance(other, Prompt) and other.snapshot_at <= n_shared else 0

    def _plan_snapshot(self, prompt: Prompt) -> None:
        """Where states cannot step back, one is kept where the next requests part from this one."""
        if not (self._whole_only and self._keeps_prefixes):
            return
        neighbours = (self._waiting[i] for i in range(1, min(len(self._waiting), N_NEIGHBOURS)))
        shared = (common_prefix(request.prompt, prompt.tokens) for request in neighbours)
        at = min((n for n in shared if n >= MIN_CHUNK), default=0)
        prompt.snapshot_at = at if at < prompt.length else 0

    # -- room -----------------------------------------------------------------------------------

    def _has_room(self, sequence: Sequence, n_cached: int, n_to_pin: int) -> bool:
        """Whether a sequence can start without the others soon being short of cells."""
        wanted = sum(s.n_remaining + min(HEADROOM, s.growth) for s in (*self._reading, *self._running))
        own = sequence.length - n_cached + min(HEADROOM, sequence.growth)
        return wanted + own + n_to_pin <= self._cells.n_available

    def _attach(self, sequence: Sequence, start: Start) -> bool:
        """Begin a sequence with what is cached, if there is room for the rest."""
        match = start.match
        if not self._has_room(sequence, match.length, self._cells.cache.n_unpinned(match)):
            return False
        self._cells.attach(sequence, match)
        return True

    def _make_free(self, n_tokens: int, asker: Sequence | None = None) -> bool:
        """Free cells for the running samples' next tokens and ``n_tokens`` more.

        What is only cached goes first, then the youngest are paused. False if ``asker`` is the youngest.
        """
        while self._cells.n_free < len(self._running) + n_tokens:
            if not self._cells.evict() and not self._pause_youngest(asker):
                return False
        return True

    def _pause_youngest(self, asker: Sequence | None = None) -> bool:
        homes = (p for p in self._active if p.id >= 0 and p.n_remaining == 0)
        placed = [*homes, *self._reading, *self._running]
        youngest = max(placed, key=_age)
        if len(placed) == 1 or youngest is asker:
            return False
        if youngest in self._reading:
            self._reading.remove(youngest)
        elif isinstance(youngest, Sample):
            self._running.remove(youngest)
        self._cells.rest(youngest, keep=True)
        if youngest.n_remaining:
            youngest.n_computed = youngest.n_settled = 0
        if isinstance(youngest, Sample):
            youngest.prompt.ready.appendleft(youngest)
        self._unplace(youngest.prompt)
        return True

    def _unplace(self, prompt: Prompt) -> None:
        if prompt not in self._unplaced:
            insort(self._unplaced, prompt, key=_age)

    # -- reading and finishing ------------------------------------------------------------------

    def _take_chunks(self, step: Step) -> None:
        """Share what the running samples leave of the batch among those being read, oldest first."""
        n_taken = 0 if self._apart else len(self._running)
        room, rows = self._n_batch - n_taken, self._n_rows - n_taken
        taken = 0
        for sequence in list(self._reading):
            if sequence.id < 0:
                continue  # paused to make room for an older one
            n = self._next_chunk(sequence, room, rows)
            if n == 0 or not self._make_free(taken + n, sequence):
                return
            chunk = Chunk.of(sequence, n)
            step.chunks.append(chunk)
            taken, room, rows = taken + n, room - n, rows - chunk.n_rows

    def _next_chunk(self, sequence: Sequence, room: int, rows: int) -> int:
        start, n_remaining = sequence.n_computed, sequence.n_remaining
        room = min(room, rows + max(0, sequence.first_row - start))
        if isinstance(sequence, Prompt) and sequence.snapshot_at > start:
            n_remaining = sequence.snapshot_at - start
        return chunk_length(n_remaining, room, self._unit)

    def _advance_reading(self, chunk: Chunk) -> None:
        sequence = chunk.sequence
        self._cells.advance(sequence, chunk.stop - chunk.start)
        if isinstance(sequence, Prompt) and sequence.request.scores_prompt:
            sequence.n_scored = max(sequence.n_scored, min(chunk.stop + 1, sequence.length))
        self._cells.settle(sequence)
        if isinstance(sequence, Prompt) and chunk.stop == sequence.snapshot_at:
            self._cells.keep_copy(sequence)
        if chunk.is_last:
            self._reading.remove(sequence)
            self._finish_reading(sequence)

    def _finish_reading(self, sequence: Sequence) -> None:
        if isinstance(sequence, Sample):
            if sequence.stop_reason:
                self._cells.rest(sequence)
            else:
                self._running.append(sequence)
            return
        assert isinstance(sequence, Prompt)
        if sequence.row is not None and sequence.id >= 0 and self._keeps_prefixes:
            self._cells.cache.keep_row(sequence.id, sequence.row)
        sequence.row = None
        sequence.ready.extend(s for s in sequence.samples if s.stop_reason is None)
        if sequence.ready:
            self._unplace(sequence)
        elif sequence.id >= 0:
            self._cells.rest(sequence)


def _age(sequence: Sequence) -> tuple[int, int]:
    return sequence.age
