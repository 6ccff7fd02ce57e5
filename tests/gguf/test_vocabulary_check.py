"""Tables that rewrite text: none may lead llama.cpp out of itself."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from convert.gguf.arrays import Array
from tinker_local.gguf.vocabulary_check import wrong_character_map

LEAF, VALUE = 1 << 8, 1 << 31


def table(nodes: dict[int, int], texts: bytes = b"x\0", n: int = 512) -> Array:
    array = np.zeros(n, "<u4")
    for place, node in nodes.items():
        array[place] = node
    data = struct.pack("<I", 4 * n) + array.tobytes() + texts
    return Array(0, np.frombuffer(data, np.uint8))


def node(base: int, character: int, leaf: bool = False) -> int:
    """A node, ``base`` being what leads to its children."""
    return base << 10 | character | (LEAF if leaf else 0)


ROOT, A = node(256, 0), 256 ^ ord("a")
GOOD = {0: ROOT, A: node(A ^ 300, ord("a"), leaf=True), 300: 0}  # "a" is rewritten as the text at 0


def test_a_sound_one() -> None:
    assert list(wrong_character_map(table(GOOD))) == []
    assert list(wrong_character_map(None)) == []


@pytest.mark.parametrize(
    "value",
    [
        table({0: node(512, 0)}),  # children outside
        table({**GOOD, A: node(A ^ 600, ord("a"), leaf=True)}),  # a value outside
        table({**GOOD, A: node(A ^ 2000, ord("a"))}),  # grandchildren outside
        table({**GOOD, 300: 2}),  # a text behind the last
        table({**GOOD, 300: 1}, b"xy"),  # a text without an end
        table(GOOD, n=400),  # a table that ends within the characters
        table(GOOD, texts=b""),  # no texts
        Array(0, np.zeros(3, np.uint8)),
        Array(4, np.zeros(30, np.uint32)),
        "no array",
    ],
)
def test_a_broken_one(value: object) -> None:
    assert list(wrong_character_map(value))


def test_a_loop_ends() -> None:
    """A node that is its own grandchild."""
    assert list(wrong_character_map(table({0: ROOT, A: node(A ^ 256, ord("a"))}))) == []
