"""When a sample stops."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np
import pytest

from tinker_local.engine.request import Request, StopRule
from tinker_local.engine.sequence import ActiveRequest, Sample

END = 0
PIECES = {END: b"</s>", 1: b"ab", 2: b"c", 3: b"cab", 4: "é".encode()[:1], 5: "é".encode()[1:], 6: b""}


def generate(rule: StopRule, tokens: list[int], max_tokens: int = 99) -> Sample:
    request = Request(
        prompt=np.zeros(1, np.int32),
        future=Future(),
        assemble=lambda outcome: outcome,
        num_samples=1,
        max_tokens=max_tokens,
        stop=rule,
    )
    (sample,) = ActiveRequest(request).samples
    for token in tokens:
        if sample.stop_reason is None:
            sample.append(token, -1.0, lambda t: (t == END, PIECES[t]))
    return sample


@pytest.mark.parametrize(
    ("rule", "tokens", "stops_after"),
    [
        (StopRule(), [1, 2, END, 1], 3),
        (StopRule(end_of_generation=False), [1, END, END], None),
        (StopRule(tokens=frozenset({2})), [1, 2, 1], 2),
        (StopRule(tokens=frozenset({2})), [1, END, 1], 2),
        (StopRule(strings=(b"abc",)), [1, 2, 1], 2),
        (StopRule(strings=(b"abc",)), [1, 1, 3, 1], 3),
        (StopRule(strings=(b"abcab",)), [2, 1, 6, 3, 1], 4),
        (StopRule(strings=(b"bca", b"zz")), [1, 3], 2),
        (StopRule(strings=(b"c",)), [1, 3], 2),
        (StopRule(strings=("é".encode(),)), [4, 5, 1], 2),
        (StopRule(strings=(b"zz",)), [1, END], 2),
        (StopRule(strings=(b"abcd",)), [1, 2, 1, 2], None),
    ],
)
def test_stops(rule: StopRule, tokens: list[int], stops_after: int | None) -> None:
    sample = generate(rule, tokens)
    assert sample.stop_reason == ("stop" if stops_after else None)
    assert sample.drawn == tokens[:stops_after]


def test_length_stops_where_nothing_else_does() -> None:
    assert generate(StopRule(), [1, 1, 1, 1], max_tokens=3).stop_reason == "length"
    assert generate(StopRule(), [1, 1, END], max_tokens=3).stop_reason == "stop"
    assert generate(StopRule(), [], max_tokens=0).stop_reason == "length"
