"""The scheduler against a simulated context that counts cells and sequences as llama.cpp would."""

from __future__ import annotations

import collections.abc
import itertools
import random
from concurrent.futures import Future

import numpy as np
import pytest

from tests.long import few
from tinker_local.engine.request import Request
from tinker_local.engine.scheduler import Scheduler
from tinker_local.engine.sequence import ActiveRequest, Prompt, Sample
from tinker_local.engine.step import MIN_CHUNK, Copy, Remove, Step, chunk_length

N_CELLS, N_SEQUENCES, N_BATCH, N_ROWS = 2048, 8, 512, 256
ROW = np.zeros(400, np.float32)
_seeds = itertools.count()


def make_request(
    n_prompt: int, n_samples: int = 1, max_tokens: int = 8, *, scored: bool = False, n_shared: int = 0
) -> Request:
    """A prompt that no other begins with, but for ``n_shared`` tokens that many do."""
    tokens = np.random.default_rng(next(_seeds)).integers(10, 10**6, n_prompt)
    tokens[:n_shared] = np.arange(min(n_shared, n_prompt))
    return Request(
        prompt=tokens.astype(np.int32),
        future=Future(),
        assemble=lambda outcome: outcome,
        num_samples=n_samples,
        max_tokens=max_tokens,
        prompt_logprobs=scored,
    )


class SimulatedContext:
    """The cells of each sequence, by position, and the tokens that they were computed for."""

    def __init__(self, *, copies_whole: bool = False) -> None:
        self.copies_whole = copies_whole
        self.sequences: dict[int, list[int]] = {}
        self._tokens: dict[int, list[int]] = {}
        self._new_cells = itertools.count()

    @property
    def n_cells(self) -> int:
        """Cells that sequences share count once."""
        return len(set().union(*self.sequences.values()))

    def edit(self, edits: collections.abc.Sequence[Remove | Copy]) -> None:
        for edit in edits:
            if isinstance(edit, Remove):
                self.sequences.pop(edit.sequence, None)
                continue
            assert edit.target not in self.sequences, "copied into a sequence that is in use"
            cells = self.sequences[edit.source]
            assert len(cells) == edit.end or (len(cells) > edit.end and not self.copies_whole)
            self.sequences[edit.target] = cells[: edit.end]
            self._tokens[edit.target] = self._tokens[edit.source][: edit.end]

    def run(self, step: Step) -> None:
        self.edit(step.edits)
        n_tokens = len(step.samples) + sum(c.stop - c.start for c in step.chunks)
        n_rows = len(step.samples) + sum(c.n_rows for c in step.chunks)
        assert n_tokens <= N_BATCH
        assert n_tokens or step.resumed
        assert n_rows <= N_ROWS
        ids = [s.id for s in step.samples] + [c.sequence.id for c in step.chunks]
        assert len(set(ids)) == len(ids)
        for sample in step.samples:
            known = sample.tokens.tolist()
            assert sample.n_computed == len(known) - 1
            self._append(sample.id, known[:-1], known[-1:])
        for chunk in step.chunks:
            known = chunk.sequence.tokens.tolist()
            assert chunk.tokens.tolist() == known[chunk.start : chunk.stop]
            self._append(chunk.sequence.id, known[: chunk.start], chunk.tokens.tolist())
        assert self.n_cells <= N_CELLS

    def _append(self, sequence: int, before: list[int], new: list[int]) -> None:
        if sequence not in self.sequences:
            self.sequences[sequence], self._tokens[sequence] = [], []
        assert self._tokens[sequence] == before, "the sequence holds other tokens"
        self._tokens[sequence] += new
        self.sequences[sequence] += itertools.islice(self._new_cells, len(new))


def draw(step: Step, rng: random.Random, p_stop: float) -> None:
    """What the engine does with a step's logits."""
    drawing: list[Sample] = list(step.samples)
    for prompt in step.resumed:
        if prompt.n_remaining == 0:
            drawing += prompt.drawing
    for chunk in step.chunks:
        if chunk.is_last:
            drawing += chunk.sequence.drawing
        if isinstance(chunk.sequence, Prompt) and chunk.n_rows:
            at_snapshot = chunk.stop == chunk.sequence.snapshot_at
            chunk.sequence.last_logits = ROW if chunk.is_last or at_snapshot else None
    for sample in drawing:
        sample.append(rng.choice([1, 2]), -1.0, lambda _: (rng.random() < p_stop, b""))


def run_to_end(
    scheduler: Scheduler, context: SimulatedContext, *, p_stop: float = 0.0, seed: int = 0
) -> list[ActiveRequest]:
    rng, done = random.Random(seed), list[ActiveRequest]()
    for number in range(100_000):
        if not scheduler.has_work:
            break
        step = scheduler.schedule()
        context.run(step)
        draw(step, rng, p_stop)
        done += scheduler.advance(step)
        if number % 16 == 0:
            scheduler.check_integrity()
    scheduler.check_integrity()
    assert not scheduler.has_work, "the scheduler makes no progress"
    return done


@pytest.fixture(params=["not kept", "kept", "kept whole"])
def prefixes(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def copies_whole(prefixes: str) -> bool:
    return prefixes == "kept whole"


@pytest.fixture
def scheduler(prefixes: str, copies_whole: bool) -> Scheduler:
    return Scheduler(
        N_CELLS,
        N_SEQUENCES,
        N_BATCH,
        N_ROWS,
        keeps_prefixes=prefixes != "not kept",
        copies_whole=copies_whole,
    )


@pytest.fixture
def context(copies_whole: bool) -> SimulatedContext:
    return SimulatedContext(copies_whole=copies_whole)


def assert_everything_returned(scheduler: Scheduler, context: SimulatedContext) -> None:
    """Nothing is reserved, the cells add up, and a request that needs them all still fits."""
    assert scheduler._cells._n_open == 0
    assert not any((scheduler._active, scheduler._prefilling, scheduler._running, scheduler._admitting))
    assert scheduler._cells._cache.n_pinned == 0
    assert scheduler._cells._cache.n_cells <= N_CELLS
    idle = list(scheduler._cells._cache._idle)
    assert sorted(idle + scheduler._cells._free_ids) == list(range(N_SEQUENCES))
    scheduler.add(make_request(N_CELLS - 20, 3, 21))
    assert len(run_to_end(scheduler, context)) == 1
    context.edit(scheduler._cells.take_edits())
    assert context.n_cells == scheduler._cells._cache.n_cells, "the account differs from the cells"


@pytest.mark.parametrize(
    ("n_samples", "max_tokens"), [(0, 0), (1, 0), (1, 1), (1, 9), (2, 9), (7, 9), (8, 9), (9, 9), (100, 3)]
)
def test_every_sample_gets_its_tokens(
    scheduler: Scheduler, context: SimulatedContext, n_samples: int, max_tokens: int
) -> None:
    scheduler.add(make_request(100, n_samples, max_tokens))
    (active,) = run_to_end(scheduler, context)
    assert [len(s.drawn) for s in active.samples] == [max_tokens] * n_samples
    assert all(s.stop_reason == "length" for s in active.samples)
    assert_everything_returned(scheduler, context)


@pytest.mark.parametrize("seed", few(6, range(20)))
def test_random_load_finishes_within_the_cells(
    scheduler: Scheduler, context: SimulatedContext, seed: int
) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        n_prompt = rng.choice([1, 5, 63, 64, 65, 200, 700, 1500])
        max_tokens = rng.randint(0, N_CELLS - n_prompt if rng.random() < 0.3 else 40)
        n_samples, scored, n_shared = rng.randint(0, 12), rng.random() < 0.5, rng.choice([0, 40, 600])
        scheduler.add(make_request(n_prompt, n_samples, max_tokens, scored=scored, n_shared=n_shared))
    assert len(run_to_end(scheduler, context, p_stop=0.05, seed=seed)) == 60
    assert_everything_returned(scheduler, context)


@pytest.mark.parametrize("seed", range(6))
def test_large_limits_do_not_keep_others_waiting(
    scheduler: Scheduler, context: SimulatedContext, seed: int
) -> None:
    """Samples that may grow to the end of the context, and seldom do, run side by side."""
    for _ in range(10):
        scheduler.add(make_request(100, 1, N_CELLS - 100))
    rng, most, done = random.Random(seed), 0, list[ActiveRequest]()
    while scheduler.has_work:
        step = scheduler.schedule()
        most = max(most, len(step.samples))
        context.run(step)
        draw(step, rng, 0.01)
        done += scheduler.advance(step)
    assert len(done) == 10
    assert most >= 6
    assert_everything_returned(scheduler, context)


def test_the_oldest_is_never_preempted(scheduler: Scheduler, context: SimulatedContext) -> None:
    for _ in range(8):
        scheduler.add(make_request(N_CELLS * 3 // 4, 1, N_CELLS // 4))
    first: ActiveRequest | None = None
    for _ in range(N_CELLS):
        step = scheduler.schedule()
        first = first or min(step.requests, key=lambda active: active.order)
        assert first in step.requests, "the oldest was preempted"
        context.run(step)
        draw(step, random.Random(0), 0)
        done = scheduler.advance(step)
        if first.is_done:
            break
    assert done == [first]
    assert len(run_to_end(scheduler, context)) == 7
    assert_everything_returned(scheduler, context)


@pytest.mark.parametrize("seed", range(10))
def test_cancelling_returns_what_was_held(
    scheduler: Scheduler, context: SimulatedContext, seed: int
) -> None:
    rng = random.Random(seed)
    requests = [make_request(rng.randint(1, 300), rng.randint(0, 10), 30) for _ in range(40)]
    for request in requests:
        scheduler.add(request)
    cancelled = set(rng.sample(range(40), 20))
    finished, dropped = list[ActiveRequest](), list[Request]()
    order = sorted(cancelled)
    while scheduler.has_work:
        if order and rng.random() < 0.5:
            requests[order.pop()].future.cancel()
            dropped += scheduler.drop_cancelled()
            continue
        step = scheduler.schedule()
        context.run(step)
        draw(step, rng, 0.02)
        for active in scheduler.advance(step):
            finished.append(active)
            active.request.future.set_running_or_notify_cancel()
    assert len(finished) + len(dropped) == 40
    assert not {id(p.request) for p in finished} & {id(r) for r in dropped}
    assert dropped
    assert_everything_returned(scheduler, context)


def test_first_come_first_served(scheduler: Scheduler, context: SimulatedContext) -> None:
    big = make_request(N_CELLS - 100, 1, 100)
    small = make_request(10, 1, 2)
    scheduler.add(make_request(500, 1, 50))
    scheduler.add(big)
    scheduler.add(small)
    done = run_to_end(scheduler, context)
    assert [p.request for p in done][1:] == [big, small], "a later request overtook one that waited"


def test_short_prompts_share_a_step(scheduler: Scheduler) -> None:
    for _ in range(4):
        scheduler.add(make_request(50))
    step = scheduler.schedule()
    assert [c.stop for c in step.chunks] == [50] * 4


def test_running_samples_do_not_wait_for_a_long_prompt(
    scheduler: Scheduler, context: SimulatedContext
) -> None:
    scheduler.add(make_request(10, 1, 20))
    for _ in range(2):
        step = scheduler.schedule()
        context.run(step)
        draw(step, random.Random(0), 0)
        scheduler.advance(step)
    scheduler.add(make_request(1500))
    for _ in range(4):
        step = scheduler.schedule()
        assert len(step.samples) == 1
        assert len(step.chunks) == 1
        context.run(step)
        draw(step, random.Random(0), 0)
        scheduler.advance(step)


def test_rows_are_flagged_only_where_needed(scheduler: Scheduler) -> None:
    scheduler.add(make_request(700))
    scheduler.add(make_request(30, 0, 0, scored=True))
    rows = []
    while scheduler.has_work:
        step = scheduler.schedule()
        rows.append([chunk.n_rows for chunk in step.chunks])
        draw(step, random.Random(0), 1.0)
        scheduler.advance(step)
    assert rows == [[0], [1, 30]]


@pytest.mark.parametrize("room", [128, 192, 250, 448, 505, 512])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 128, 300, 511, 512, 513, 520, 575, 576, 577, 5000])
def test_chunks_are_never_short(length: int, room: int) -> None:
    lengths, remaining = [], length
    while remaining:
        lengths.append(chunk_length(remaining, room))
        assert 0 < lengths[-1] <= room
        remaining -= lengths[-1]
    assert sum(lengths) == length
    assert min(lengths) >= min(MIN_CHUNK, length)
    assert all(n % MIN_CHUNK == 0 for n in lengths[:-1])


def test_a_chunk_waits_for_room() -> None:
    assert chunk_length(100, 63) == 0
    assert chunk_length(20, 10) == 0
    assert chunk_length(100, 99) == 0  # 64 would leave 36


def test_a_request_cancelled_while_they_are_asked_is_not_lost(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [make_request(10) for _ in range(3)]
    for request in requests:
        scheduler.add(request)
    requests[0].future.cancel()
    answers = iter([False, True])  # another thread cancels just after it was asked
    monkeypatch.setattr(requests[1].future, "cancelled", lambda: next(answers))
    assert scheduler.drop_cancelled() == requests[:1]
    assert scheduler.drop_cancelled() == requests[1:2]
    assert len(scheduler.schedule().chunks) == 1
