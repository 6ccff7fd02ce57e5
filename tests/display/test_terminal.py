"""Coloured text on terminals with few or many colours; no token can send control characters."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.color import Color, ColorSystem
from rich.console import Console

from tests.display.hostile import TOKENS, hostile_text
from tinker_local.display import TextComparison, scale
from tinker_local.display.terminal import colour_console, show, theme_of_terminal

OURS = re.compile(r"\x1b\[[0-9;]*m")


def shown(what: Any, colors: Any, theme: scale.Theme = scale.DARK) -> str:
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, color_system=colors, width=120, highlight=False, no_color=False
    )
    show(console, what, theme)
    return file.getvalue()


@pytest.mark.parametrize(
    ("colors", "code"), [("truecolor", "48;2;"), ("256", "48;5;"), ("standard", "41m")]
)
def test_colours_and_totals(colors: str, code: str) -> None:
    made = hostile_text()
    text = shown(made, colors)
    assert code in text
    plain = OURS.sub("", text)
    for value in (f"{made.total:.4f}", f"{made.mean:.4f}", f"{made.perplexity:.4f}"):
        assert value.replace("-", "−") in plain
    assert f"{len(TOKENS)} tokens" in plain
    assert "60.65\xa0%" in plain, "an alternative of a surprising token"
    assert "<script>" in plain


@pytest.mark.parametrize(
    "what", [hostile_text(), TextComparison(hostile_text(), hostile_text("other", shift=0.7))]
)
def test_tokens_do_nothing_to_the_terminal(what: Any) -> None:
    plain = OURS.sub("", shown(what, "truecolor"))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain)
    assert "\\x1b]0;owned\\x07" in plain


def test_a_comparison() -> None:
    made = TextComparison(hostile_text("one"), hostile_text("two", shift=0.7))
    text = shown(made, "truecolor")
    assert "48;2;74;151;214" in text
    assert "48;2;198;125;30" in text
    assert "log-probability, B − A" in OURS.sub("", text)
    assert "+2.1000" in OURS.sub("", text)


@pytest.mark.parametrize("theme", [scale.LIGHT, scale.DARK], ids=["light", "dark"])
def test_256_colours_keep_the_contrast(theme: scale.Theme) -> None:
    pairs = [scale.surprise_colours(theme, level) for level in range(1, 8)]
    pairs += [scale.change_colours(theme, change) for change in (-4, -3, -2, -1, 1, 2, 3, 4)]
    for pair in pairs:
        assert pair
        coarse = [Color.parse(c).downgrade(ColorSystem.EIGHT_BIT).get_truecolor().hex for c in pair]
        assert scale.contrast(*coarse) >= 4.5, (pair, coarse)


def test_when_there_are_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert colour_console(None) is None, "standard output is no terminal here"
    forced = colour_console(True)
    assert forced
    assert forced.color_system == "256"
    monkeypatch.setenv("COLORTERM", "truecolor")
    forced = colour_console(True)
    assert forced
    assert forced.color_system == "truecolor"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert colour_console(None)
    assert colour_console(False) is None
    monkeypatch.setenv("NO_COLOR", "1")
    assert colour_console(None) is None
    assert colour_console(True), "who asks for colours gets them"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert colour_console(None) is None
    assert colour_console(True)


@pytest.mark.parametrize(
    ("variable", "theme"), [("0;15", "LIGHT"), ("15;0", "DARK"), ("", "DARK"), ("x", "DARK")]
)
def test_the_background(monkeypatch: pytest.MonkeyPatch, variable: str, theme: str) -> None:
    monkeypatch.setenv("COLORFGBG", variable)
    assert theme_of_terminal(None) is getattr(scale, theme)
    assert theme_of_terminal(True) is scale.LIGHT
    assert theme_of_terminal(False) is scale.DARK
