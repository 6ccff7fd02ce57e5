"""Drafts by prompt lookup: what is found, and how much is drafted."""

from __future__ import annotations

import numpy as np

from tinker_local.engine.prompt_lookup import PromptLookup
from tinker_local.engine.request import Request
from tinker_local.engine.sequence import ActiveRequest, Sample


def lookup_of(text: str, drawn: str) -> tuple[PromptLookup, Sample]:
    request = Request(np.frombuffer(text.encode(), np.uint8).astype(np.int32), None, None, num_samples=1)  # type: ignore[arg-type]
    active = ActiveRequest(request)
    active.samples[0].drawn[:] = drawn.encode()
    return PromptLookup(active.prompt), active.samples[0]


def test_what_followed_the_longest_run() -> None:
    lookup, sample = lookup_of("abcX bcY abc", " bc")
    for n in (1, 2, 4):
        lookup.accept(sample, n, n)
    assert bytes(lookup.draft(sample, 0, 15)) == b"Y abc"
    assert bytes(lookup.draft(sample, 0, 2)) == b"Y "


def test_short_runs_are_for_free_drafts() -> None:
    lookup, sample = lookup_of("xyc?", "abc")
    assert lookup.draft(sample, 0, 15) == []
    assert bytes(lookup.draft(sample, 1, 15)) == b"?"


def test_fewer_drafts_after_wrong_ones() -> None:
    lookup, sample = lookup_of("abcdefgh", "abc")
    tried = []
    for _ in range(40):
        draft = lookup.draft(sample, 0, 15)
        tried.append(len(draft))
        lookup.accept(sample, len(draft), 0)
    assert tried == [1 if i in (0, 2, 5, 10, 19, 36) else 0 for i in range(40)]
    lookup.accept(sample, 1, 1)
    assert bytes(lookup.draft(sample, 0, 15)) == b"de"


def test_what_was_drawn_counts_too() -> None:
    lookup, sample = lookup_of("?", "xyzw xyz")
    assert bytes(lookup.draft(sample, 0, 15)) == b"w"


def test_nothing_to_go_by() -> None:
    lookup, sample = lookup_of("abc", "d")
    assert lookup.draft(sample, 3, 15) == []
