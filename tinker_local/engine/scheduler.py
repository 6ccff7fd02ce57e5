"""The scheduler: chooses the tokens of the next batch, and who holds which KV sequences and cells.

A request waits until it is first in line. Then its prompt and its samples, each a sequence, move through
these states. A prompt ends with its prefill; its samples then decode one token a step.

                     admit                 last chunk             stop
    waiting  ───────────────────>  prefilling  ──────>  running  ──────>  finished
       ^     ──────────────────────────────────────────>   │                 │
       │      (one token left)          │                  │                 v
       └──────────── preempted ─────────┴──────────────────┘          cached, or gone

    waiting     no KV sequence yet. ``_waiting`` holds requests that were not begun, ``_admitting`` those
                with a part still to be admitted: new samples, and what was preempted
    prefilling  a KV sequence, and more than one token to compute (``_prefilling``)
    running     a KV sequence, and one token to compute: the last drawn (``_running``)

``schedule`` admits, decodes and prefills; ``advance`` moves on what the step has computed.

First come, first served. A sequence is admitted if there is room for its tokens and for some growth. When
the cells run out nevertheless, cached prefixes are evicted first; then the youngest sequence is preempted,
and later computed again from what is still cached. The oldest always goes on, so everything finishes.
Knows nothing of llama.cpp: the scheduler says what to remove, copy and decode, and the runner does it.
"""

from __future__ import annotations

from bisect import insort
from collections import deque

from tinker_local.engine.cells import Cells, Start
from tinker_local.engine.image import PlacedImage
from tinker_local.engine.prefix_cache import common_prefix
from tinker_local.engine.request import Request
from tinker_local.engine.sequence import ActiveRequest, Prompt, Sample, Sequence
from tinker_local.engine.step import MIN_CHUNK, Chunk, Step, chunk_length

HEADROOM = 128
"""Cells left for each running sample to grow into before another one is admitted: enough that preemption
is rare, few enough that a large ``max_tokens`` does not keep others waiting."""

N_NEIGHBOURS = 16
"""Waiting requests that are looked at for a prefix worth a snapshot."""


class Scheduler:
    """Queues of requests and sequences, and who gets which room when.

    Args:
        n_cells: cells of the KV cache.
        n_sequences: KV sequences the context can tell apart.
        n_batch: most tokens of a step.
        n_rows: most rows of logits of a step.
        keeps_prefixes: finished sequences stay for later requests to start from.
        copies_whole: sequences can only be copied as a whole (recurrent and hybrid models).
    """

    def __init__(
        self,
        n_cells: int,
        n_sequences: int,
        n_batch: int,
        n_rows: int,
        *,
        keeps_prefixes: bool = False,
        copies_whole: bool = False,
    ) -> None:
        self._n_batch, self._n_rows = n_batch, n_rows
        self._unit = min(MIN_CHUNK, n_batch // 3)  # so that two always fit
        self._keeps_prefixes, self._copies_whole = keeps_prefixes, copies_whole
        self._cells = Cells(n_cells, n_sequences, keeps_prefixes=keeps_prefixes, copies_whole=copies_whole)
        self._n_requests = 0
        self._waiting: deque[Request] = deque()
        self._next: ActiveRequest | None = None  # the first that waits, once it was looked at
        self._active: dict[ActiveRequest, None] = {}  # oldest first
        self._admitting: list[ActiveRequest] = []  # some of the active ones; oldest first
        self._prefilling: list[Sequence] = []  # oldest first
        self._running: list[Sample] = []
        self._resumed: list[Prompt] = []  # started from cached logits, which the next step reads

    @property
    def has_work(self) -> bool:
        """Whether a step would compute anything."""
        return bool(self._waiting or self._active)

    @property
    def n_waiting(self) -> int:
        """Requests that wait for room, in whole or in part."""
        return len(self._waiting) + len(self._admitting)

    @property
    def requests(self) -> list[Request]:
        """All that are not finished."""
        return [active.request for active in self._active] + list(self._waiting)

    def add(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request)

    def schedule(self) -> Step:
        """Admit what has room, and choose the next step's tokens."""
        # 1. Requests get KV sequences in the order of arrival, until one finds no room.
        self._admit()
        # 2. Each running sample decodes one token, which needs a cell.
        self._make_room(0)
        # 3. Prefill takes what is left of the batch. Making room for it may preempt running samples.
        chunks = self._take_chunks()
        # 4. Edits come last, since each part before may have evicted, copied or removed something.
        resumed = [p for p in self._resumed if p.id >= 0 or p.n_remaining == 0]  # not preempted since
        self._resumed = []
        return Step(self._cells.take_edits(), list(self._running), chunks, resumed)

    def advance(self, step: Step) -> list[ActiveRequest]:
        """Account for a decoded step whose tokens have been drawn; return the finished requests."""
        for prompt in step.resumed:
            if prompt.n_remaining == 0:
                self._finish_prompt(prompt)
        for chunk in step.chunks:
            self._advance_prefill(chunk)
        for sample in step.samples:
            self._advance_decode(sample)
        finished = [active for active in step.requests if active.is_done]
        for active in finished:
            self.release(active)
        if not (self._active or self._keeps_prefixes):
            self._cells.forget_prefixes()
        return finished

    # -- ending requests ------------------------------------------------------------------------

    def release(self, active: ActiveRequest) -> bool:
        """Take back everything a request holds, finished or not. False if it was released before."""
        if active not in self._active:
            return False
        del self._active[active]
        self._admitting = [a for a in self._admitting if a is not active]
        self._prefilling = [s for s in self._prefilling if s.owner is not active]
        self._running = [s for s in self._running if s.owner is not active]
        for sequence in active.sequences:
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
        for active in [a for a in self._active if a.request.future.cancelled()]:
            self.release(active)
            dropped.append(active.request)
        return dropped

    def clear(self) -> list[Request]:
        """Forget all requests, and return them."""
        dropped = self.requests
        for active in list(self._active):
            self.release(active)
        self._waiting.clear()
        return dropped

    def forget_prefixes(self) -> None:
        """Forget everything that is only cached."""
        self._cells.forget_prefixes()

    # -- admitting ------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Admit in the order of arrival: parts of active requests, then the requests that wait."""
        while self._admitting:
            if not self._admit_parts(self._admitting[0]):
                return
            self._admitting.pop(0)
        while self._waiting:
            active = self._look_at_next()
            if not self._admit_prompt(active.prompt):
                return
            self._waiting.popleft()
            self._active[active] = None

    def _look_at_next(self) -> ActiveRequest:
        request = self._waiting[0]
        if self._next is None or self._next.request is not request:
            self._next = ActiveRequest(request, self._n_requests)
            self._n_requests += 1
        self._plan_snapshot(self._next.prompt)
        return self._next

    def _admit_parts(self, active: ActiveRequest) -> bool:
        """Admit what an active request has ready; False if some of it has to wait."""
        if not active.ready:  # its prompt was preempted during prefill
            return self._admit_prompt(active.prompt)
        while active.ready:
            if self._admit_sample(active.ready[0]):
                active.ready.popleft()
            elif self._running or self._prefilling or not self._preempt_youngest():
                return False
        if active.prompt.id >= 0:
            self._cells.release_to_cache(active.prompt)
        return True

    def _admit_prompt(self, prompt: Prompt) -> bool:
        """Start a prompt from what is cached; False if it has to wait."""
        active = prompt.owner
        # 1. There must be a KV sequence, and nobody about to offer a much longer prefix.
        if not self._cells.find_id():
            return False
        start = self._find_start(prompt)
        if self._is_being_prefilled(prompt, start.length):
            return False
        # 2. A prompt that is only scored, with all scores known, needs no cells.
        n_scored = max(prompt.n_scored, start.n_scored)
        complete = prompt.is_scored and n_scored == len(active.request.prompt) and not active.samples
        if not complete and not self._attach(prompt, start):
            return False
        # 3. What is known is taken over: scores, and the logits after the last cached token.
        prompt.scores.write(start.scores)
        prompt.n_scored = n_scored
        active.begin(start.length)
        if complete:
            prompt.n_computed = prompt.n_committed = prompt.length
        if complete or start.logits is not None:
            prompt.last_logits = start.logits
            self._resumed.append(prompt)
        # 4. The rest is prefilled.
        if prompt.n_remaining:
            insort(self._prefilling, prompt, key=_age)
        return True

    def _admit_sample(self, sample: Sample) -> bool:
        """Give a sample a KV sequence: its prompt's own, or one that starts from it; False: it waits."""
        if self._takes_over(sample):
            if not self._has_room(sample, sample.prompt.length, 0):
                return False
            self._cells.take_over(sample)
        else:
            if not self._cells.find_id():
                return False
            start = self._find_start(sample)
            if self._is_being_prefilled(sample, start.length) or not self._attach(sample, start):
                return False
        if sample.n_remaining == 1:
            self._running.append(sample)
        else:  # it was preempted, and its cells are gone
            insort(self._prefilling, sample, key=_age)
        return True

    def _takes_over(self, sample: Sample) -> bool:
        """Whether a sample goes on in its prompt's own sequence, since nobody else needs it."""
        if sample.prompt.id < 0 or len(sample.owner.ready) > 1 or len(sample.drawn) > 1:
            return False
        return not (self._copies_whole and self._keeps_prefixes and self._cells.has_free_id)

    # -- where sequences start ------------------------------------------------------------------

    def _find_start(self, sequence: Sequence) -> Start:
        """Find what is cached of a sequence, and worth starting from."""
        is_new = isinstance(sequence, Prompt) and sequence.owner.is_new
        if is_new and not self._keeps_prefixes:
            return self._cells.from_nothing
        start = self._cells.find_start(sequence)
        if not is_new or 2 * start.length >= sequence.length:
            return start
        is_alone = not self._active and len(self._waiting) == 1
        if sequence.is_scored and is_alone and sequence.request.wanted.first == 1:
            self._cells.forget_prefixes()  # a score that shares little is that of the model run alone
            return self._cells.from_nothing
        return start if start.length >= MIN_CHUNK else self._cells.from_nothing

    def _is_being_prefilled(self, sequence: Sequence, n_cached: int) -> bool:
        """Whether another sequence will soon offer a much longer prefix than is cached."""
        if isinstance(sequence, Prompt) and not self._keeps_prefixes:
            return False
        shared = ((other, self._n_to_share(other, sequence)) for other in self._prefilling)
        return any(
            n > other.n_computed and (n_cached + MIN_CHUNK <= n or sequence.has_image(n_cached, n))
            for other, n in shared
        )

    def _n_to_share(self, other: Sequence, sequence: Sequence) -> int:
        """Tokens that ``sequence`` could start from when ``other`` has computed them."""
        n_shared = common_prefix(other.tokens, sequence.tokens)
        if sequence.is_scored:
            wanted = sequence.request.wanted
            offers = isinstance(other, Prompt) and other.request.offers(wanted)
            n_shared = min(n_shared, wanted.limit if offers else wanted.first - 1)
        if not self._copies_whole:
            return n_shared
        return other.snapshot_at if other.snapshot_at <= n_shared else 0

    def _plan_snapshot(self, prompt: Prompt) -> None:
        """Where states cannot step back, keep one where the next requests part from this prompt."""
        if not (self._copies_whole and self._keeps_prefixes):
            return
        neighbours = (self._waiting[i] for i in range(1, min(len(self._waiting), N_NEIGHBOURS)))
        shared = (common_prefix(request.prompt, prompt.tokens) for request in neighbours)
        at = min((n for n in shared if n >= MIN_CHUNK), default=0)
        prompt.snapshot_at = at if at < prompt.length else 0

    # -- room, and preemption -------------------------------------------------------------------

    def _has_room(self, sequence: Sequence, n_cached: int, n_to_pin: int) -> bool:
        """Whether a sequence can start without the others soon being short of cells."""
        at_work = (*self._prefilling, *self._running)
        wanted = sum(s.n_remaining + min(HEADROOM, s.growth) for s in at_work)
        own = sequence.length - n_cached + min(HEADROOM, sequence.growth)
        return wanted + own + n_to_pin <= self._cells.n_available

    def _attach(self, sequence: Sequence, start: Start) -> bool:
        """Begin a sequence with what is cached, if there is room for the rest."""
        if not self._has_room(sequence, start.length, self._cells.n_to_pin(start)):
            return False
        self._cells.attach(sequence, start)
        return True

    def _make_room(self, n_tokens: int, asker: Sequence | None = None) -> bool:
        """Free cells for the running samples' next tokens and ``n_tokens`` more.

        Cached prefixes are evicted first, then the youngest sequences preempted. False if ``asker`` is
        the youngest.
        """
        while self._cells.n_free < len(self._running) + n_tokens:
            if not self._cells.evict() and not self._preempt_youngest(asker):
                return False
        return True

    def _preempt_youngest(self, asker: Sequence | None = None) -> bool:
        """Take the KV sequence from the youngest; False if that is ``asker`` or the last one left."""
        # 1. Complete prompts that still hold cells for their samples count as well.
        complete = (a.prompt for a in self._active if a.prompt.id >= 0 and a.prompt.n_remaining == 0)
        placed = [*complete, *self._prefilling, *self._running]
        youngest = max(placed, key=_age)
        if len(placed) == 1 or youngest is asker:
            return False
        # 2. Its cells stay cached until somebody needs them.
        if youngest in self._prefilling:
            self._prefilling.remove(youngest)
        elif isinstance(youngest, Sample):
            self._running.remove(youngest)
        self._cells.release_to_cache(youngest, keep=True)
        if youngest.n_remaining:
            youngest.n_computed = youngest.n_committed = 0
        # 3. It is admitted again before requests that are not begun.
        if isinstance(youngest, Sample):
            youngest.owner.ready.appendleft(youngest)
        self._readmit(youngest.owner)
        return True

    def _readmit(self, active: ActiveRequest) -> None:
        if active not in self._admitting:
            insort(self._admitting, active, key=lambda a: a.order)

    # -- prefilling -----------------------------------------------------------------------------

    def _take_chunks(self) -> list[Chunk]:
        """Share what the running samples leave of the batch among the prefilling, oldest first."""
        chunks: list[Chunk] = []
        n_decoding = len(self._running)
        room, rows, taken, has_image = self._n_batch - n_decoding, self._n_rows - n_decoding, 0, False
        for sequence in list(self._prefilling):
            if sequence.id < 0:
                continue  # preempted to make room for an older one
            end, placed = sequence.next_run
            if placed and has_image:
                continue  # a step has one image, which is decoded by itself
            n = (
                self._image_chunk(sequence, placed)
                if placed
                else self._next_chunk(sequence, end, room, rows)
            )
            if n == 0 or not self._make_room(taken + n, sequence):
                break
            chunk = Chunk.of(sequence, n)
            chunks.append(chunk)
            taken, has_image = taken + n, has_image or placed is not None
            if not placed:
                room, rows = room - n, rows - chunk.n_rows
        return chunks

    def _image_chunk(self, sequence: Sequence, placed: PlacedImage) -> int:
        """Return how many of an image's cells come next: all if they see each other."""
        n_remaining = placed.stop - sequence.n_computed
        return (
            chunk_length(n_remaining, self._n_batch, self._unit) if placed.image.is_causal else n_remaining
        )

    def _next_chunk(self, sequence: Sequence, end: int, room: int, rows: int) -> int:
        """Return how many tokens before ``end`` come next, with room for tokens and rows of logits."""
        start = sequence.n_computed
        n_remaining = end - start
        room = min(room, rows + max(0, sequence.first_row - start))
        if sequence.snapshot_at > start:
            n_remaining = min(n_remaining, sequence.snapshot_at - start)
        return chunk_length(n_remaining, room, self._unit)

    def _advance_prefill(self, chunk: Chunk) -> None:
        """Account for a computed chunk, and offer its tokens to others."""
        sequence = chunk.sequence
        self._cells.advance(sequence, chunk.stop - chunk.start)
        if isinstance(sequence, Prompt) and sequence.is_scored:
            sequence.n_scored = max(sequence.n_scored, min(chunk.stop + 1, len(sequence.request.prompt)))
        self._cells.commit(sequence)
        if isinstance(sequence, Prompt) and chunk.stop == sequence.snapshot_at:
            self._cells.keep_snapshot(sequence)
        if chunk.is_last:
            self._prefilling.remove(sequence)
            self._finish_prefill(sequence)

    def _finish_prefill(self, sequence: Sequence) -> None:
        if isinstance(sequence, Prompt):
            self._finish_prompt(sequence)
        elif isinstance(sequence, Sample):
            if sequence.stop_reason:
                self._cells.release_to_cache(sequence)
            else:
                self._running.append(sequence)

    def _finish_prompt(self, prompt: Prompt) -> None:
        """Hand a complete prompt to its samples, whose first tokens have been drawn."""
        self._cells.keep_logits(prompt)
        prompt.last_logits = None
        ready = prompt.owner.ready
        ready.extend(sample for sample in prompt.owner.samples if sample.stop_reason is None)
        if ready:
            self._readmit(prompt.owner)
        elif prompt.id >= 0:
            self._cells.release_to_cache(prompt)

    # -- decoding -------------------------------------------------------------------------------

    def _advance_decode(self, sample: Sample) -> None:
        """Account for a sample's drawn tokens; the last one is still to be computed."""
        self._cells.advance(sample, sample.n_remaining - 1)
        if sample.stop_reason:
            self._running.remove(sample)
            self._cells.release_to_cache(sample)

    # -- checking -------------------------------------------------------------------------------

    def check_integrity(self) -> None:
        """Check the queues and accounts between two steps; for tests.

        Raises:
            AssertionError: something in them contradicts something else.
        """
        at_work = [s for active in self._active for s in active.sequences if s.id >= 0]
        self._cells.check_integrity(at_work)
        assert len({s.id for s in at_work}) == len(at_work), "two sequences with one id"
        assert all(s in at_work for s in (*self._prefilling, *self._running)), "a lost sequence is queued"
        assert self._prefilling == sorted(self._prefilling, key=_age), "prefilling out of order"
        assert all(s.n_remaining == 1 and not s.stop_reason for s in self._running), "no single token left"
        assert all(active in self._active for active in self._admitting), "a released request is admitted"


def _age(sequence: Sequence) -> tuple[int, int]:
    return sequence.age
