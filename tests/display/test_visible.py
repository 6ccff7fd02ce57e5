"""Every character is visible, affects none of its neighbours, and can be recovered."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.display.hostile import TOKENS
from tinker_local.display import visible


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b" the", "·the"),
        (b"  ", "··"),
        (b"a b ", "a b·"),
        (b"\n", "↵"),
        (b"\r\n\t", "\\r↵⇥"),
        (b"\x00\x1b[0m", "\\x00\\x1b[0m"),
        (b"\xf0\x9f", "\\xf0\\x9f"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        ("\u202ex\u00a0".encode(), "\\u202ex\\u00a0"),
        (b"\xa0\xad\x85", "\\xa0\\xad\\x85"),  # bytes, which stay apart from these characters
        ("\u00a0\u00ad\u0085".encode(), "\\u00a0\\u00ad\\u0085"),
        ("\u0301".encode(), "◌\u0301"),
        ("é😀中".encode(), "é😀中"),
        (b"", "∅"),
    ],
)
def test_one_line(data: bytes, shown: str) -> None:
    assert visible.one_line(visible.text_of_bytes(data)) == shown


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b" the", "' the'"),
        (b"\xf0\x9f", "'\\xf0\\x9f'"),
        (b"\\xf0", "'\\\\xf0'"),  # four characters of plain text
        (b"\n\r\t", "'\\n\\r\\t'"),
        (b"it's", '"it\'s"'),
        (b"'\"", "'\\'\"'"),
        ("\ufffd\u0085\u202e\u2800".encode(), "'\ufffd\\u0085\\u202e\\u2800'"),
        ("é中😀".encode(), "'é中😀'"),
        (b"", "''"),
    ],
)
def test_quoted(data: bytes, shown: str) -> None:
    assert visible.quoted(visible.text_of_bytes(data)) == shown


@given(st.lists(st.binary(max_size=6), min_size=2, max_size=2, unique=True))
def test_quoted_texts_that_differ_look_different(both: list[bytes]) -> None:
    one, other = map(visible.text_of_bytes, both)
    assert visible.quoted(one) != visible.quoted(other)


def test_one_line_is_short() -> None:
    assert visible.one_line("x" * 1000, 10) == "x" * 9 + "…"
    assert len(visible.one_line("\x00" * 1000, 10)) == 10


@given(st.one_of(st.binary(max_size=40), st.sampled_from(TOKENS)))
def test_all_is_there_and_nothing_is_unseen(data: bytes) -> None:
    text = visible.text_of_bytes(data)
    assert visible.bytes_of_text(text) == data
    found = list(visible.pieces(text))
    assert "".join(piece.written for piece in found) == text
    for piece in found:
        piece.shown.encode()  # no lone surrogates
        for character in piece.shown:
            category = unicodedata.category(character)
            assert category[0] not in "C" and (character == " " or category[0] != "Z")  # noqa: PT018
    assert "\n" not in visible.one_line(text)


def test_whole_characters() -> None:
    texts = [
        visible.text_of_bytes(data)
        for data in (b"a", b" \xf0\x9f", b"\x98", b"\x80", b"\xff", b"\xe4", b"b")
    ]
    assert visible.whole_characters(texts) == {1: " 😀", 2: " 😀", 3: " 😀"}


def test_direction() -> None:
    assert visible.is_right_to_left("12 שלום abc")
    assert not visible.is_right_to_left("abc שלום")
    assert not visible.is_right_to_left("12")
