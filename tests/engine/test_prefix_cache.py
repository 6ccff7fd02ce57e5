"""The radix tree against a list of the cells that each sequence holds."""

from __future__ import annotations

import random

import numpy as np
import pytest
from numpy.typing import NDArray

from tinker_local.engine.prefix_cache import PrefixCache, common_prefix


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
            if cache.rest(sequence):
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
    for sequence in list(cells):
        cache.remove(sequence)
    assert cache.n_cells == 0
    assert cache.match(tokens_of(1)).length == 0


def start(cache: PrefixCache, sequence: int, tokens: NDArray[np.int32], **options: bool) -> int:
    match = cache.match(tokens, **options)
    cache.attach(sequence, match)
    cache.extend(sequence, tokens[match.length :])
    return match.length


def test_the_least_recently_used_goes_first() -> None:
    cache = PrefixCache()
    for sequence, token in enumerate((10, 20, 30)):
        start(cache, sequence, tokens_of(token, 1, 2))
        assert cache.rest(sequence)
    assert start(cache, 3, tokens_of(10, 1, 9)) == 2  # uses sequence 0
    assert [cache.evict(), cache.evict(), cache.evict(), cache.evict()] == [1, 2, 0, None]
    assert cache.n_cells == 3


def test_what_adds_nothing_is_not_kept() -> None:
    cache = PrefixCache()
    start(cache, 0, tokens_of(1, 2, 3))
    start(cache, 1, tokens_of(1, 2, 3, 4))
    assert not cache.rest(0), "all of it is part of sequence 1"
    cache.remove(0)
    assert cache.rest(1)
    cache.attach(2, cache.match(tokens_of(1, 2)))
    cache.extend(2, tokens_of(3, 4))  # computed again
    assert cache.n_cells == 6
    assert not cache.rest(2)


def test_scored_prefixes() -> None:
    cache = PrefixCache()
    cache.attach(0, cache.match(tokens_of()))
    cache.extend(0, tokens_of(1, 2, 3), np.array([np.nan, -1, -2], np.float32))
    cache.extend(0, tokens_of(4, 5))
    wanted = tokens_of(1, 2, 3, 4, 5, 6)
    assert cache.match(wanted).length == 5
    match = cache.match(wanted, scored=True)
    assert match.length == 3
    assert cache.logprobs(match).tolist()[1:] == [-1, -2]
    match = cache.match(tokens_of(1, 2, 9), scored=True)
    assert cache.logprobs(match).tolist()[1:] == [-1]
    cache.attach(1, match)  # splits the node
    assert cache.logprobs(cache.match(wanted, scored=True)).tolist()[1:] == [-1, -2]


def test_states_are_matched_where_a_sequence_ends() -> None:
    cache = PrefixCache(whole_only=True)
    start(cache, 0, tokens_of(1, 2, 3))
    assert cache.match(tokens_of(1, 2, 3, 4)).length == 0, "it is at work, and may be further by now"
    assert cache.rest(0)
    assert cache.match(tokens_of(1, 2, 9)).length == 0
    assert cache.match(tokens_of(1, 2, 3, 4)).length == 3
    assert start(cache, 1, tokens_of(1, 2, 3, 4, 5)) == 3
    assert cache.rest(1)
    assert cache.match(tokens_of(1, 2, 3, 7)).length == 3
    assert cache.match(tokens_of(1, 2, 3, 4, 5, 6)).length == 5
