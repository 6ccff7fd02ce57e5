"""The radix tree against a list of the cells that each sequence holds."""

from __future__ import annotations

import random

import numpy as np
import pytest
from numpy.typing import NDArray

from tinker_local.engine import prefix_cache
from tinker_local.engine.prefix_cache import PrefixCache, common_prefix
from tinker_local.engine.scores import Scores, Wanted


def tokens_of(*tokens: int) -> NDArray[np.int32]:
    return np.array(tokens, np.int32)


def longest(held: list[list[int]], wanted: list[int]) -> int:
    return max((common_prefix(np.array(h, np.int32), np.array(wanted, np.int32)) for h in held), default=0)


@pytest.mark.parametrize("seed", range(30))
def test_random_operations(seed: int) -> None:
    rng = random.Random(seed)
    cache = PrefixCache()
    cells: dict[int, list[tuple[int, int]]] = {}  # (cell, token) by sequence
    idle: list[int] = []
    new_cell = iter(range(10**9))
    for sequence in range(200):
        wanted = [rng.choice([1, 1, 1, 2]) for _ in range(rng.randint(1, 12))]
        match = cache.match(np.array(wanted, np.int32))
        held = {s: [token for _, token in c] for s, c in cells.items()}
        assert match.length == longest(list(held.values()), wanted)
        keep = rng.randint(0, match.length)
        match = cache.shortened(match, keep)
        assert match.length == keep
        source = cache.attach(sequence, match)
        cells[sequence] = cells[source][:keep] if keep else []
        assert [token for _, token in cells[sequence]] == wanted[:keep]
        for part in (wanted[keep:], [3] * rng.randint(0, 2)):
            cache.extend(sequence, np.array(part, np.int32))
            cells[sequence] = cells[sequence] + [(next(new_cell), token) for token in part]
        if rng.random() < 0.7:
            if cache.release(sequence):
                idle.append(sequence)
            else:
                cache.remove(sequence)
                del cells[sequence]
        if len(cells) > 20:
            evicted = cache.evict()
            if evicted is not None:
                assert evicted in idle
                idle.remove(evicted)
                del cells[evicted]
            else:
                victim = rng.choice(list(cells))
                cache.remove(victim)
                del cells[victim]
        assert cache.n_cells == len({cell for c in cells.values() for cell, _ in c})
        at_work = [c for s, c in cells.items() if s not in idle]
        assert cache.n_pinned == len({cell for c in at_work for cell, _ in c})
        cache.check_integrity(cells.keys() - set(idle))
    for sequence in list(cells):
        cache.remove(sequence)
    assert (cache.n_cells, cache.n_pinned) == (0, 0)
    assert cache.match(tokens_of(1)).length == 0


def start(cache: PrefixCache, sequence: int, tokens: NDArray[np.int32]) -> int:
    match = cache.match(tokens)
    cache.attach(sequence, match)
    cache.extend(sequence, tokens[match.length :])
    return match.length


def scores_of(*logprobs: float, k: int = 2) -> Scores:
    n = len(logprobs)
    ids = np.arange(n * k, dtype=np.int32).reshape(n, k)
    return Scores(np.array(logprobs, np.float32), ids, ids.astype(np.float32))


def known(cache: PrefixCache, tokens: NDArray[np.int32], k: int = 0, first: int = 1) -> list[float]:
    pieces = cache.known_scores(cache.match_scored(tokens, Wanted(first, 99, k)), first)
    return [x for _, piece in pieces for x in piece.logprobs.tolist()]


def test_the_least_recently_used_goes_first() -> None:
    cache = PrefixCache()
    for sequence, token in enumerate((10, 20, 30)):
        start(cache, sequence, tokens_of(token, 1, 2))
        assert cache.release(sequence)
    assert start(cache, 3, tokens_of(10, 1, 9)) == 2  # uses sequence 0
    assert [cache.evict(), cache.evict(), cache.evict(), cache.evict()] == [1, 2, 0, None]
    assert cache.n_cells == 3


def test_what_adds_nothing_is_not_kept() -> None:
    cache = PrefixCache()
    start(cache, 0, tokens_of(1, 2, 3))
    start(cache, 1, tokens_of(1, 2, 3, 4))
    assert not cache.release(0), "all of it is part of sequence 1"
    cache.remove(0)
    assert cache.release(1)
    cache.attach(2, cache.match(tokens_of(1, 2)))
    cache.extend(2, tokens_of(3, 4))  # computed again
    assert cache.n_cells == 6
    assert not cache.release(2)


def test_scored_prefixes() -> None:
    cache = PrefixCache()
    cache.attach(0, cache.nothing)
    cache.extend(0, tokens_of(1, 2, 3), scores_of(np.nan, -1, -2))
    cache.extend(0, tokens_of(4, 5))
    wanted = tokens_of(1, 2, 3, 4, 5, 6)
    assert cache.match(wanted).length == 5
    match = cache.match_scored(wanted, Wanted(1, 6, 0))
    assert (match.length, match.n_scored) == (5, 3)
    assert known(cache, wanted) == [-1, -2]
    assert known(cache, tokens_of(1, 2, 9)) == [-1]
    assert known(cache, wanted, k=2) == [-1, -2]
    assert known(cache, wanted, k=3) == [], "only two alternatives were found"
    cache.attach(1, cache.match_scored(tokens_of(1, 2, 9), Wanted(1, 3, 0)))  # splits the node
    assert known(cache, wanted) == [-1, -2]


def test_scores_that_are_not_wanted_do_not_count() -> None:
    cache = PrefixCache()
    cache.attach(0, cache.nothing)
    cache.extend(0, tokens_of(1, 2, 3))
    cache.extend(0, tokens_of(4, 5), scores_of(-3, -4))
    prompt = tokens_of(1, 2, 3, 4, 5, 6)
    assert [cache.match_scored(prompt, Wanted(first, 6, 0)).n_scored for first in range(1, 6)] == [
        1,
        2,
        5,
        5,
        5,
    ]
    assert known(cache, prompt, first=3) == [-3, -4]
    assert known(cache, prompt, first=4) == [-4]
    assert known(cache, prompt, first=2) == []
    seen = cache.match_scored(prompt, Wanted(3, 4, 0))
    assert seen.n_scored == 4, "from position 4 on the logits themselves are wanted"
    assert [place for place, _ in cache.known_scores(seen, 3)] == [3]


def test_scores_are_taken_from_the_copy_that_has_them() -> None:
    cache = PrefixCache()
    for sequence, scores in enumerate([None, scores_of(np.nan, -1, -2), None]):
        cache.attach(sequence, cache.nothing)
        cache.extend(sequence, tokens_of(1, 2, 3), scores)
    assert known(cache, tokens_of(1, 2, 3, 4)) == [-1, -2]


def test_the_parts_of_a_piece_of_scores() -> None:
    scores = Scores.unknown(5, 1)
    scores.write([(0, scores_of(0.0, -1)), (2, scores_of(-2, -3, -4).part(0, 2))])
    assert scores.logprobs[:4].tolist() == [0, -1, -2, -3]
    assert np.isnan(scores.logprobs[4])
    assert scores.topk_ids.tolist() == [[0], [2], [0], [2], [0]]


def test_pinned_cells_are_those_of_sequences_at_work() -> None:
    cache = PrefixCache()
    start(cache, 0, tokens_of(1, 2, 3))
    assert cache.n_pinned == 3
    assert cache.release(0)
    assert cache.n_pinned == 0
    match = cache.match(tokens_of(1, 2, 9))
    assert cache.n_unpinned(match) == 2
    cache.attach(1, match)
    assert (cache.n_pinned, cache.n_cells) == (2, 3)
    assert cache.n_unpinned(cache.match(tokens_of(1, 2, 3))) == 1
    cache.remove(1)
    assert cache.n_pinned == 0


def test_rows_are_kept_at_the_end_of_a_node_and_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    row = np.zeros(8, np.float32)
    monkeypatch.setattr(prefix_cache, "_ROWS_BYTES", 2 * row.nbytes)
    cache = PrefixCache()
    for sequence in range(3):
        start(cache, sequence, tokens_of(sequence, 1, 2))
        cache.keep_row(sequence, row)
    assert cache.match(tokens_of(0, 1, 2)).row is None, "the oldest went"
    assert cache.match(tokens_of(1, 1, 2)).row is row
    assert cache.match(tokens_of(1, 1)).row is None
    cache.attach(3, cache.match(tokens_of(1, 1)))  # splits the node
    assert cache.match(tokens_of(1, 1)).row is None
    assert cache.match(tokens_of(1, 1, 2)).row is row


def test_states_are_matched_where_a_sequence_ends() -> None:
    cache = PrefixCache(copies_whole=True)
    start(cache, 0, tokens_of(1, 2, 3))
    assert cache.match(tokens_of(1, 2, 3, 4)).length == 0, "it is at work, and may be further by now"
    assert cache.release(0)
    assert cache.match(tokens_of(1, 2, 9)).length == 0
    assert cache.match(tokens_of(1, 2, 3, 4)).length == 3
    assert start(cache, 1, tokens_of(1, 2, 3, 4, 5)) == 3
    assert cache.release(1)
    assert cache.match(tokens_of(1, 2, 3, 7)).length == 3
    assert cache.match(tokens_of(1, 2, 3, 4, 5, 6)).length == 5


@pytest.mark.parametrize("fault", ["a lost cell", "a lost pin", "a lost holder", "an idle one at work"])
def test_a_broken_cache_is_noticed(fault: str) -> None:
    cache = PrefixCache()
    start(cache, 0, tokens_of(1, 2, 3))
    start(cache, 1, tokens_of(1, 2, 4))
    cache.check_integrity({0, 1})
    if fault == "a lost cell":
        cache.n_cells -= 1
    elif fault == "a lost pin":
        cache._ends[0].pins = 0
    elif fault == "a lost holder":
        cache._ends[0].holders.clear()
    else:
        assert cache.release(1)
    with pytest.raises(AssertionError):
        cache.check_integrity({0, 1})
