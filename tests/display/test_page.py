"""The HTML page as a parser sees it: no token can add an element or attribute."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.display.hostile import TOKENS, hostile_text
from tinker_local import BadRequestError
from tinker_local.display import ScoredText, TextComparison, write_page
from tinker_local.display.page import page
from tinker_local.display.visible import one_line, text_of_bytes


class Parsed(HTMLParser):
    """Elements, attributes and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.names: set[str] = set()
        self.details: list[str] = []
        self.ids: Counter[str] = Counter()
        self.said: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            self.names.add(name)
            if name == "data-look":
                self.details.append(value or "")
            if name == "id":
                self.ids[value or ""] += 1

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


ATTRIBUTES = {"lang", "class", "charset", "http-equiv", "content", "name", "type", "id", "checked", "href"}
ATTRIBUTES |= {"tabindex", "data-look", "role", "aria-label", "dir", "translate"}


@pytest.mark.parametrize(
    "html",
    [page(hostile_text()), page(TextComparison(hostile_text(), hostile_text("other", shift=0.7)))],
    ids=["one", "two"],
)
def test_hostile_tokens_add_nothing(html: str) -> None:
    parsed = Parsed(html)
    assert not {"script", "img", "b", "link", "iframe", "object"} & set(parsed.tags)
    assert parsed.tags["style"] == parsed.tags["title"] == 1
    assert parsed.names == ATTRIBUTES
    assert max(parsed.ids.values()) == 1
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066\u2067\u200b-\u200f\ufeff]", html.replace("\t", "")
    )


def test_each_token_and_its_alternatives_are_told() -> None:
    made = hostile_text()
    parsed = Parsed(page(made))
    assert len(parsed.details) == len(TOKENS)
    assert "not scored" in parsed.details[0]
    for i, (data, detail) in enumerate(zip(TOKENS, parsed.details, strict=True)):
        assert one_line(text_of_bytes(data)) in detail
        assert f"id {i}" in detail
        for other in made.tokens[i].alternatives:
            assert f"   id {other.token_id}" in detail.partition("\n")[2], "alternatives have ids"
        if i:
            assert "rank 1" in detail
            assert [f"{share} %" in detail for share in ("60.65", "22.31", "8.21")] == [True] * 3
    assert "part of \u2068😀\u2069" in parsed.details[TOKENS.index(b"\x98")]
    assert "bytes ff fe" in parsed.details[TOKENS.index(b"\xff\xfe")]


def test_totals_are_told() -> None:
    made = hostile_text()
    said = Parsed(page(made)).said
    for value in (f"{made.total:.4f}", f"{made.mean:.4f}", f"{made.perplexity:.4f}", f"{len(TOKENS):,}"):
        assert value.replace("-", "−") in said


def test_the_policy_allows_the_style_sheet_and_nothing_else() -> None:
    html = page(hostile_text())
    style = re.search("<style>(.*?)</style>", html, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = re.search(r'Security-Policy" content="(.*?)"', html)
    assert policy
    assert (
        policy[1] == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_the_same_text_gives_the_same_page() -> None:
    assert page(hostile_text()) == page(hostile_text())


def test_two_vocabularies() -> None:
    html = page(TextComparison(hostile_text(), ScoredText.of("other", [1, 2], [None, -1.0], None, chr)))
    assert "no difference by token" in html
    assert len(Parsed(html).details) == len(TOKENS) + 2


def test_without_a_vocabulary_ids_are_shown() -> None:
    html = page(ScoredText.of("x", [11, 12], [None, -9.0], [None, [(13, -0.5)]]))
    assert ">11</span> <span" in html
    assert "id 13" in html


def test_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "page.html"
    write_page(place, hostile_text())
    assert place.read_text(encoding="utf-8") == page(hostile_text())
    other = tmp_path / "link.html"
    other.symlink_to(place)
    write_page(other, hostile_text("second"))
    assert other.is_symlink()
    assert "<title>second" in place.read_text(encoding="utf-8")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(BadRequestError, match=r"page\.html cannot be written: No space left"):
        write_page(place, hostile_text("third"))
    assert "<title>second" in place.read_text(encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == [other, place]


@pytest.mark.parametrize(
    ("place", "said"), [("none/page.html", "no directory"), (".", "not a regular file")]
)
def test_places_that_are_none(tmp_path: Path, place: str, said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        write_page(tmp_path / place, hostile_text())
