"""Which characters tokens stand for; the right values are those of the library tokenizers."""

from __future__ import annotations

import pytest

from tinker_local import BadRequestError
from tinker_local.encoding.offsets import token_offsets

SMILE = "😀".encode()


@pytest.mark.parametrize(
    ("text", "pieces", "offsets"),
    [
        ("", [], []),
        ("ab c", [b"ab", b" c"], [(0, 2), (2, 4)]),
        ("a😀b", [b"a", SMILE[:1], SMILE[1:3], SMILE[3:], b"b"], [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)]),
        ("a ü", [b"a", b" \xc3", b"\xbc"], [(0, 1), (1, 3), (2, 3)]),
        ("Hi you", [b" Hi", b" you"], [(0, 2), (2, 6)]),  # the space that SentencePiece puts in front
        ("Hi", [b" ", b"Hi"], [(0, 0), (0, 2)]),
        ("<s>  Hi", [b"<s>", b"Hi"], [(0, 3), (5, 7)]),  # spaces that a special token swallows
    ],
)  # fmt: skip
def test_offsets(text: str, pieces: list[bytes], offsets: list[tuple[int, int]]) -> None:
    assert token_offsets(text, pieces) == offsets


def test_a_text_that_the_vocabulary_rewrites() -> None:
    with pytest.raises(BadRequestError, match="spells 'e\u0301' as 'é'"):
        token_offsets("e\u0301", ["é".encode()])
