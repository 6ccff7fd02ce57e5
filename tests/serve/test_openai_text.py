"""Tokens as text: what a client may see of a continuation, and when."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tinker_local.serve.openai_api.logprobs import Scored, of_chat, of_completion, of_prompt
from tinker_local.serve.openai_api.pieces import GeneratedText, Offsets, Pieces
from tinker_local.serve.openai_api.reasoning import Marks, ReasoningSplit

VOCABULARY = [b"ab", b"c", b"\xc3", b"\xa9", b"<end>", b"<think>", b"\xff", b" x", b"\xc3\xa9"]
AB, C, FIRST, SECOND, END, THINK, BAD, SPACED, WHOLE = range(9)


class FakeTokenizer:
    all_special_ids = (END, THINK)

    def token_bytes(self, token: int) -> bytes:
        return VOCABULARY[token]

    def decode(self, tokens: Any, skip_special_tokens: bool = False) -> str:
        """As SentencePiece does: without the first space."""
        return b"".join(VOCABULARY[t] for t in tokens if t != END).decode("utf-8", "replace").lstrip(" ")


def pieces(**options: Any) -> Pieces:
    return Pieces(FakeTokenizer(), **options)  # type: ignore[arg-type]


def text(tokens: list[int], *stops: str, stopped: bool = True, **options: Any) -> list[str]:
    """Return what each token adds, and the end."""
    ids = options.pop("ids", ())
    keeps = options.pop("keeps_stop", False)
    whole = GeneratedText(pieces(**options), stops, frozenset(ids), keeps_stop=keeps)
    return [*map(whole.add, tokens), whole.end(stopped=stopped)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (text([AB, C], stopped=False), ["ab", "c", ""]),
        (text([FIRST, SECOND, C], stopped=False), ["", "é", "c", ""]),
        (text([C, FIRST], stopped=False), ["c", "", "\N{REPLACEMENT CHARACTER}"]),
        (text([BAD, C], stopped=False), ["\N{REPLACEMENT CHARACTER}", "c", ""]),
        # stops: within a token, across tokens, begun and not completed
        (text([C, AB], "b"), ["c", "a", ""]),
        (text([C, AB, C], "bc"), ["c", "a", "", ""]),
        (text([AB, AB, C], "bc", "zz"), ["a", "ba", "", ""]),
        (text([AB], "bc", stopped=False), ["a", "b"]),
        (text([AB, AB], "abab"), ["", "", ""]),
        (text([AB, C, C], "abcd", stopped=False), ["", "", "abcc", ""]),
        (text([FIRST, SECOND], "é"), ["", "", ""]),
        (text([C, AB, C], "bc", keeps_stop=True), ["c", "a", "", "bc"]),
        # tokens that end: of those that stop, and an end-of-generation token, which is special
        (text([AB, C], ids=[C]), ["ab", "", ""]),
        (text([C, AB, C], ids=[AB], stopped=False), ["c", "", "abc", ""]),
        (text([AB, C], ids=[C], keeps_stop=True), ["ab", "", "c"]),
        (text([AB, END]), ["ab", "", ""]),
        (text([AB, END], keeps_special=True), ["ab", "", ""]),
        (text([AB, END, C], keeps_special=True, stopped=False), ["ab", "", "<end>c", ""]),
        (text([AB, END, C], stopped=False), ["ab", "", "c", ""]),
        (text([AB, END], "<end>"), ["ab", "", ""]),
        (text([THINK, C], kept=["<think>"], stopped=False), ["", "<think>c", ""]),
    ],
)
def test_what_is_shown_and_held(found: list[str], expected: list[str]) -> None:
    assert found == expected


def test_a_stream_adds_up_to_the_whole() -> None:
    stops = ["bcab", "é "]
    for tokens in itertools.product(range(9), repeat=4):
        whole = GeneratedText(pieces(), stops, frozenset({C}))
        parts = text(list(tokens), *stops, ids=[C], stopped=False)
        assert "".join(parts) == whole.whole(tokens, stopped=False)


def test_places_of_tokens() -> None:
    assert list(map(Offsets().next, pieces().shown([AB, FIRST, SECOND, END, C]))) == [0, 2, 2, 3, 3]
    assert pieces().prompt([END, SPACED, SPACED]) == [b"", b"x", b" x"]
    assert pieces().prompt([]) == []


def test_names_of_tokens() -> None:
    assert [pieces().name(token) for token in (AB, FIRST, END)] == ["ab", "bytes:\\xc3", "<end>"]
    assert pieces(as_ids=True).name(C) == "token_id:1"


class TestLogprobs:
    SCORED = Scored(
        [AB, C, FIRST], [None, -2.0, float("-inf")], [None, [(AB, -0.5), (C, -2.0)], [(AB, -0.1)]]
    )

    def test_of_a_completion(self) -> None:
        found = of_completion(pieces(), self.SCORED, 1, [0, 2, 3])
        assert found["tokens"] == ["ab", "c", "bytes:\\xc3"]
        assert found["token_logprobs"] == [None, -2.0, -9999.0]
        assert found["top_logprobs"] == [
            None,
            {"ab": -0.5, "c": -2.0},
            {"ab": -0.1, "bytes:\\xc3": -9999.0},
        ]

    def test_tokens_of_one_text_keep_the_more_probable_number(self) -> None:
        double = pieces()
        double.name = lambda token: "same"  # type: ignore[method-assign]
        one = Scored([C], [-3.0], [[(AB, -0.5), (FIRST, -2.0)]])
        assert of_completion(double, one, 2, [0])["top_logprobs"] == [{"same": -0.5}]

    def test_of_a_chat(self) -> None:
        found = of_chat(pieces(), Scored([FIRST], [-1.0], [[(AB, -0.5), (C, -2.0)]]), 1)
        assert found["content"] == [
            {
                "token": "bytes:\\xc3",
                "logprob": -1.0,
                "bytes": [0xC3],
                "top_logprobs": [{"token": "ab", "logprob": -0.5, "bytes": [97, 98]}],
            }
        ]

    def test_of_a_prompt(self) -> None:
        found = of_prompt(pieces(), self.SCORED, 2)
        assert found[0] is None
        assert list(found[1] or {}) == ["1", "0"]
        assert (found[1] or {})["1"] == {"logprob": -2.0, "rank": 2, "decoded_token": "c"}
        assert (found[2] or {})["2"]["rank"] is None


MARKS = Marks("<think>", "</think>")


def split(parts: list[str], marks: Marks | None = MARKS, *, is_open: bool = False) -> tuple[str, str]:
    whole = ReasoningSplit(marks, is_open=is_open)
    found = [*map(whole.add, parts), whole.end()]
    return "".join(reasoning for reasoning, _ in found), "".join(content for _, content in found)


@pytest.mark.parametrize(
    ("said", "is_open", "expected"),
    [
        ("<think>\na b\n</think>\n\nyes\n", False, ("a b", "yes\n")),
        ("a\n</think> yes", True, ("a", "yes")),
        ("\n<think></think>yes", False, ("", "yes")),
        ("yes <think>no</think>", False, ("", "yes <think>no</think>")),
        ("<thin", False, ("", "<thin")),
        ("<think>a </thi", False, ("a </thi", "")),
        ("a\n\nb", True, ("a\n\nb", "")),
        ("  plain", False, ("", "  plain")),
        ("", True, ("", "")),
    ],
)
def test_reasoning(said: str, is_open: bool, expected: tuple[str, str]) -> None:
    assert split([said], is_open=is_open) == expected
    assert split(list(said), is_open=is_open) == expected
    assert split(list(said), marks=None) == ("", said)


def test_marks_are_those_of_the_template() -> None:
    assert Marks.of("{{ '<think>' }}..</think>") == MARKS
    assert Marks.of("no reasoning") is None
    prompt = "<|user|>a <think> b<|assistant|>"
    assert not MARKS.is_open_after(prompt, [], continued=False)
    assert MARKS.is_open_after(prompt + "<think>\n", [], continued=False)
    said = [{"role": "assistant", "content": "<think>so far"}]
    assert MARKS.is_open_after("", said, continued=True)
    assert not MARKS.is_open_after("", [{"content": "<think>a</think>b"}], continued=True)
