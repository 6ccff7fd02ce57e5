from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_local import kernels
from tinker_local.kernels import reference

ALL = (1 << 64) - 1

# From kat_vectors of Random123 (philox4x64, 10 rounds): counter, key, result.
KNOWN = [
    (
        (0, 0, 0, 0),
        (0, 0),
        "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
    ),
    (
        (ALL, ALL, ALL, ALL),
        (ALL, ALL),
        "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
    ),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
    ),
]

words = st.integers(0, ALL)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], result: str) -> None:
    block = kernels._kernels.philox(counter, *key)
    assert " ".join(f"{int(word):016x}" for word in block) == result


@given(words, words, words)
def test_streams_are_numpys(seed: int, sample: int, position: int) -> None:
    # numpy counts up before it makes a block.
    counter = np.array([(position - 1) & ALL] + 3 * [0 if position else ALL], dtype=np.uint64)
    key = np.array([seed, sample], dtype=np.uint64)
    expected = np.random.Philox(counter=counter, key=key).random_raw(4)
    assert kernels.philox(seed, sample, position).tolist() == expected.tolist()
    assert reference.philox(seed, sample, position).tolist() == expected.tolist()
