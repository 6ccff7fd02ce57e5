"""The page in a real browser: colours, hover, focus, both themes, 5,000 tokens, and hostile ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.display.hostile import TOKENS, hostile_text
from tests.parity.browser import Browser, find_chromium
from tinker_local.display import ScoredText, TextComparison, scale, write_page
from tinker_local.display.visible import text_of_bytes

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium, or CHROMIUM=program"),
]
TIP = "getComputedStyle({}, '::after')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM
    with Browser(CHROMIUM) as one:
        yield one


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Browser:
    write_page(tmp_path / "page.html", hostile_text())
    browser.prefer("light")
    browser.open(tmp_path / "page.html")
    return browser


def token(i: int) -> str:
    return f"document.querySelectorAll('.tl-text .tl-t')[{i}]"


def mark(browser: Browser, i: int) -> None:
    """Have ``[data-here]`` select a token."""
    browser.evaluate("document.querySelectorAll('[data-here]').forEach(e => delete e.dataset.here)")
    browser.evaluate(f"{token(i)}.dataset.here = 1")


def colours(browser: Browser, element: str) -> tuple[str, str]:
    """Return an element's computed background and ink as ``#rrggbb``."""
    values = browser.evaluate(f"(s => [s.backgroundColor, s.color])(getComputedStyle({element}))")
    background, ink = (_hex(value) for value in values)
    return background, ink


def _hex(computed: str) -> str:
    red, green, blue, *alpha = (float(part) for part in re.findall(r"[\d.]+", computed))
    return "transparent" if alpha == [0] else f"#{int(red):02x}{int(green):02x}{int(blue):02x}"


def tip(browser: Browser, i: int) -> str | None:
    """Return what is shown at a token, None if nothing is."""
    content = browser.evaluate(f"{TIP.format(token(i))}.content")
    return None if content == "none" else _of_css(content[1:-1])


def _of_css(string: str) -> str:
    """Return what a CSS string says: after a backslash there is a code in hex, or the character."""
    return re.sub(
        r"\\(?:([0-9a-f]{1,6}) ?|(.))",
        lambda found: chr(int(found[1], 16)) if found[1] else found[2],
        string,
    )


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("by", ["preference", "switch"])
def test_colours_are_those_of_the_scale(opened: Browser, name: str, by: str) -> None:
    theme = getattr(scale, name.upper())
    if by == "preference":
        opened.prefer(name)
    else:
        opened.prefer("dark" if name == "light" else "light")
        opened.evaluate(f"document.getElementById('tl-{name}').click()")
    assert colours(opened, "document.documentElement") == (theme.paper, theme.ink)
    seen = set()
    for i, one in enumerate(hostile_text().tokens):
        if one.logprob is None:
            continue
        level = scale.level(one.logprob)
        expected = scale.surprise_colours(theme, level) or ("transparent", theme.ink)
        assert colours(opened, token(i)) == expected
        seen.add(level)
    assert seen == set(range(8))
    legend = "document.querySelectorAll('.tl-legend li')[{}]"
    for level in range(1, 8):
        assert colours(opened, legend.format(level + 1)) == scale.surprise_colours(theme, level)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_whatever_is_written_has_contrast(opened: Browser, scheme: str) -> None:
    """WCAG 2.2, AA, of every element with text of its own, on the nearest background behind it."""
    opened.prefer(scheme)
    pairs = opened.evaluate(
        """[...document.querySelectorAll('body *')].filter(e =>
             [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
               let at = e;
               while (getComputedStyle(at).backgroundColor === 'rgba(0, 0, 0, 0)') at = at.parentElement;
               const own = getComputedStyle(e);
               return [getComputedStyle(at).backgroundColor, own.color, own.opacity, e.outerHTML];
           })"""
    )
    assert len(pairs) > len(TOKENS)
    for background, ink, opacity, what in pairs:
        assert opacity == "1", what
        assert scale.contrast(_hex(background), _hex(ink)) >= 4.5, what


def test_hovering_shows_alternatives(opened: Browser) -> None:
    assert tip(opened, 5) is None
    mark(opened, 5)
    opened.move_to("[data-here]")
    shown = tip(opened, 5)
    assert shown == opened.evaluate(f"{token(5)}.dataset.look")
    assert shown
    assert "rank 1" in shown
    assert "60.65 %" in shown
    assert "</title>" in shown
    assert tip(opened, 6) is None
    style = opened.evaluate(f"(s => [s.position, s.whiteSpaceCollapse, s.display])({TIP.format(token(5))})")
    assert style[:2] == ["fixed", "preserve"]
    pair = opened.evaluate(f"(s => [s.backgroundColor, s.color])({TIP.format(token(5))})")
    assert scale.contrast(*map(_hex, pair)) >= 4.5
    opened.do("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert tip(opened, 5) is None


def test_the_keyboard_shows_alternatives(opened: Browser) -> None:
    for _ in range(12):
        opened.press("Tab")
        if opened.evaluate("document.activeElement.matches('.tl-text .tl-t')"):
            break
    assert opened.evaluate(f"document.activeElement === {token(0)}")
    opened.press("Tab")
    shown = tip(opened, 1)
    assert shown
    assert "<script>" in shown
    assert tip(opened, 0) is None


def test_the_box_stays_on_the_screen(browser: Browser, tmp_path: Path) -> None:
    words = [f" word{i}".encode() for i in range(400)]
    topk = [[(i, -0.7), ((i + 1) % 400, -2.0)] for i in range(400)]
    write_page(
        tmp_path / "p.html",
        ScoredText.of("x", range(400), [-1.0] * 400, topk, lambda i: text_of_bytes(words[i])),
    )
    browser.resize(500, 400)
    try:
        browser.open(tmp_path / "p.html")
        rightmost = browser.evaluate(
            "[...document.querySelectorAll('.tl-text .tl-t')].reduce((best, e, i, all) =>"
            " e.getBoundingClientRect().right > all[best].getBoundingClientRect().right ? i : best, 0)"
        )
        for i in (0, rightmost, 399):
            mark(browser, i)
            browser.move_to("[data-here]")
            # a pseudo-element has no box to ask for: its insets are distances from the window's edges
            sides = browser.evaluate(f"(s => [s.left, s.right, s.top, s.bottom])({TIP.format(token(i))})")
            assert all(float(side.removesuffix("px")) >= -0.5 for side in sides), (i, sides)
            assert browser.evaluate("document.documentElement.scrollWidth") <= 500
    finally:
        browser.resize(1200, 900)


@pytest.mark.parametrize("two", [False, True])
def test_tokens_do_nothing(browser: Browser, tmp_path: Path, two: bool) -> None:
    one = hostile_text("model")
    write_page(tmp_path / "p.html", TextComparison(one, hostile_text("other", shift=0.7)) if two else one)
    browser.open(tmp_path / "p.html")
    title = "model and other" if two else "model"
    assert browser.evaluate("document.title") == f"{title}: log-probabilities"
    assert browser.evaluate("document.scripts.length + document.images.length") == 0
    assert browser.evaluate("document.querySelectorAll('.tl-text .tl-t').length") == len(TOKENS) * (
        1 + 2 * two
    )
    requested = [event["request"]["url"] for event in browser.said("Network.requestWillBeSent")]
    assert requested == [(tmp_path / "p.html").as_uri()]
    assert browser.said("Log.entryAdded") == [], "the policy refused something"
    assert browser.said("Runtime.consoleAPICalled") == []
    heads = browser.evaluate("[...document.querySelectorAll('.tl-text .tl-t')].map(e => e.textContent)")
    assert heads[TOKENS.index(b"<script>")] == "<script>"
    assert heads[TOKENS.index("\u202eevil\u202c".encode())] == "\\u202eevil\\u202c"


def test_the_policy_refuses_what_is_not_ours(browser: Browser, tmp_path: Path) -> None:
    """Were an escape forgotten, the policy would still hold."""
    write_page(tmp_path / "p.html", hostile_text())
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    bad = "<script>document.title='owned'</script><img src='http://localhost:9/x'><style>p{}</style>"
    (tmp_path / "p.html").write_text(page.replace("<main>", f"<main>{bad}"), encoding="utf-8")
    browser.open(tmp_path / "p.html")
    assert browser.evaluate("document.title") != "owned"
    said: list[Any] = [event["entry"]["text"] for event in browser.said("Log.entryAdded")]
    assert sum("Content Security Policy" in text for text in said) == 3, said


def test_a_comparison(browser: Browser, tmp_path: Path) -> None:
    made = TextComparison(hostile_text("one"), hostile_text("two", shift=1.5))
    write_page(tmp_path / "p.html", made)
    browser.prefer("light")
    browser.open(tmp_path / "p.html")
    assert made.differences
    seen = set()
    for i, difference in enumerate(made.differences):
        if difference is not None:
            change = scale.change(difference)
            expected = scale.change_colours(scale.LIGHT, change) or ("transparent", scale.LIGHT.ink)
            assert colours(browser, token(i)) == expected
            seen.add(change)
    assert {-4, -3, 0, 3, 4} <= seen
    boxes = browser.evaluate(
        "[...document.querySelectorAll('.tl-beside .tl-text')].map(e => (r => [r.left, r.right, r.top])"
        "(e.getBoundingClientRect()))"
    )
    assert boxes[0][1] < boxes[1][0]
    assert boxes[0][2] == boxes[1][2]
    mark(browser, 3)
    browser.move_to("[data-here]")
    shown = tip(browser, 3)
    assert shown
    assert "B − A" in shown
    assert shown.count("rank 1") == 2


def test_five_thousand_tokens(browser: Browser, tmp_path: Path) -> None:
    """Each of them is there and can be hovered over; what that costs is printed (``-rP``)."""
    repeat = 5000 // len(TOKENS) + 1
    write_page(tmp_path / "p.html", hostile_text(repeat=repeat))
    n = len(TOKENS) * repeat
    loaded = browser.open(tmp_path / "p.html")
    assert browser.evaluate("document.querySelectorAll('.tl-text .tl-t').length") == n
    assert browser.evaluate("document.querySelectorAll('*').length") < 3 * n
    browser.do("Performance.enable", timeDomain="threadTicks")
    before = _metrics(browser)
    places = range(40, n, n // 20)
    for i in places:
        mark(browser, i)
        browser.move_to("[data-here]")
        assert tip(browser, i) == browser.evaluate(f"{token(i)}.dataset.look")
    after = _metrics(browser)
    each = {
        name: 1000 * (after[name] - before[name]) / len(places)
        for name in ("LayoutDuration", "TaskDuration")
    }
    print(
        f"{n} tokens loaded in {loaded:.2f} s; ms of the page's thread for scrolling and hovering: {each}"
    )


def _metrics(browser: Browser) -> dict[str, float]:
    return {metric["name"]: metric["value"] for metric in browser.do("Performance.getMetrics")["metrics"]}


def test_a_notebook_s_output_beside_other_style_sheets(browser: Browser, tmp_path: Path) -> None:
    from tinker_local.display.notebook import in_html
    from tinker_local.types import SampledSequence

    sequence = SampledSequence("stop", "a", _tokens_list=[1, 2], _logprobs_list=[-0.1, -9.9])
    output = in_html([sequence], None)
    for dark in (False, True):
        body = f'<body data-jp-theme-light="{str(not dark).lower()}"><p class="t">mine</p>{output}{output}'
        (tmp_path / "n.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{body}", encoding="utf-8")
        browser.prefer("light" if dark else "dark")  # what the notebook's theme says counts
        browser.open(tmp_path / "n.html")
        theme = scale.DARK if dark else scale.LIGHT
        assert colours(browser, "document.querySelectorAll('.tinker-look')[1]") == (theme.paper, theme.ink)
        assert colours(browser, token(3)) == scale.surprise_colours(theme, 7)
        assert colours(browser, "document.querySelector('p.t')") == ("transparent", "#000000")
