"""From numbers to colours: eight levels of surprise, and four of change in each direction.

Each scale changes lightness in one direction, so that it can be read without seeing hues. Blue and
orange stay distinct in every kind of colour-blindness. Text on each colour has a contrast of at least
4.5 (WCAG 2.2, success criterion 1.4.3). ``tests/display/test_scale.py`` computes all three.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

PROBABILITIES = (0.5, 0.2, 0.1, 0.03, 0.01, 0.001, 0.0001)
"""Lower edges of the levels: level 0 is at least the first, level 7 is below the last."""

DIFFERENCES = (0.1, 0.5, 1.5, 4.0)
"""Lower edges of changes 1, 2, 3 and 4, in nats."""

_EDGES = [-math.log(probability) for probability in PROBABILITIES]
_DARK_INK, _LIGHT_INK = "#111111", "#ffffff"


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours as ``#rrggbb``.

    Attributes:
        paper: background of the page.
        ink: text on ``paper``.
        surprise: backgrounds of levels 1 to 7.
        more: backgrounds of changes 1 to 4, tokens that the second model finds more probable.
        less: backgrounds of changes -1 to -4, tokens that the second model finds less probable.
    """

    paper: str
    ink: str
    surprise: tuple[str, ...]
    more: tuple[str, ...]
    less: tuple[str, ...]


LIGHT = Theme(
    paper="#fffefb",
    ink="#23252a",
    surprise=("#fdf3cc", "#fce29a", "#f8c567", "#ee9f52", "#d9735c", "#ab466f", "#642a70"),
    more=("#dbe8f6", "#a3c8ea", "#5799d1", "#1f5a96"),
    less=("#fde6c8", "#fbbf76", "#e28a24", "#a85206"),
)
DARK = Theme(
    paper="#17181b",
    ink="#e6e3dd",
    surprise=("#2b2140", "#46265c", "#702f70", "#a03d6b", "#d9665c", "#f29a48", "#fbd976"),
    more=("#1c3047", "#21507e", "#4a97d6", "#93cbf8"),
    less=("#3c2b18", "#6d4514", "#c67d1e", "#f8bd6a"),
)


def level(logprob: float) -> int:
    """Return the level of surprise of a log-probability: 0 (expected) to 7."""
    return bisect_left(_EDGES, -logprob)


def change(difference: float) -> int:
    """Return the level of a difference of log-probabilities: -4 to 4."""
    size = sum(abs(difference) >= edge for edge in DIFFERENCES)
    return size if difference > 0 else -size


def surprise_colours(theme: Theme, level: int) -> tuple[str, str] | None:
    """Return background and ink of a level; None for level 0, which is not coloured."""
    return _with_ink(theme.surprise[level - 1]) if level else None


def change_colours(theme: Theme, change: int) -> tuple[str, str] | None:
    """Return background and ink of a change; None for 0, which is not coloured."""
    if change == 0:
        return None
    return _with_ink((theme.more if change > 0 else theme.less)[abs(change) - 1])


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21, as WCAG 2.2 defines it."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def level_names() -> list[str]:
    """Return the labels of levels 0 to 7 for a legend."""
    shares = [_percent(probability) for probability in PROBABILITIES]
    return [f"≥ {share}" for share in shares] + [f"< {shares[-1]}"]


def change_names(side: Literal["more", "less"]) -> list[str]:
    """Return the labels of changes 1 to 4 for a legend."""
    sign = "+" if side == "more" else "−"
    return [f"{sign}{edge:g}" for edge in DIFFERENCES]


def _percent(probability: float) -> str:
    return f"{100 * probability:g} %"


def _with_ink(background: str) -> tuple[str, str]:
    return background, max((_DARK_INK, _LIGHT_INK), key=lambda ink: contrast(background, ink))


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


__all__ = [
    "DARK",
    "DIFFERENCES",
    "LIGHT",
    "PROBABILITIES",
    "Theme",
    "change",
    "change_colours",
    "change_names",
    "contrast",
    "level",
    "level_names",
    "surprise_colours",
]
