"""The colour scales are legible: contrast, lightness alone, and every kind of colour-blindness."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tinker_local.display import scale

THEMES = pytest.mark.parametrize("theme", [scale.LIGHT, scale.DARK], ids=["light", "dark"])

# What a dichromat sees of linear RGB: Machado, Oliveira & Fernandes (2009), severity 1.0.
DICHROMACIES = {
    "nobody": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def oklab(colour: str, seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Ottosson's OKLab of a colour as it is seen; distances in it match perceived differences."""
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    to_cones += [[0.0883024619, 0.2817188376, 0.6299787005]]
    cones = np.cbrt(np.array(to_cones) @ np.clip(seen @ linear, 0, 1))
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    to_lab += [[0.0259040371, 0.7827717662, -0.8086757660]]
    return np.asarray(np.array(to_lab) @ cones, np.float64)


def test_contrast_is_that_of_wcag() -> None:
    assert scale.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert scale.contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)
    assert scale.contrast("#abcdef", "#abcdef") == 1


@THEMES
def test_text_can_be_read_on_each_colour(theme: scale.Theme) -> None:
    pairs = [scale.surprise_colours(theme, level) for level in range(8)]
    pairs += [scale.change_colours(theme, change) for change in range(-4, 5)]
    assert pairs.count(None) == 2, "the least surprising and no change have the paper's colours"
    for pair in (*pairs, (theme.paper, theme.ink)):
        assert pair is None or scale.contrast(*pair) >= 4.5, pair


@THEMES
@pytest.mark.parametrize("kind", DICHROMACIES)
def test_levels_differ_whoever_looks(theme: scale.Theme, kind: str) -> None:
    seen = DICHROMACIES[kind]
    for colours in (theme.surprise, theme.more, theme.less):
        labs = [oklab(colour, seen) for colour in (theme.paper, *colours)]
        steps = [b[0] - a[0] for a, b in itertools.pairwise(labs)]
        assert len({step > 0 for step in steps}) == 1, "lightness goes one way"
        assert min(np.linalg.norm(b - a) for a, b in itertools.pairwise(labs)) > 0.03
    for more, less in zip(theme.more, theme.less, strict=True):
        assert np.linalg.norm(oklab(more, seen) - oklab(less, seen)) > 0.04


def test_levels() -> None:
    shares = [1.0, 0.5, 0.49, 0.2, 0.19, 0.1, 0.09, 0.03, 0.02, 0.01, 0.009, 0.001, 0.0009, 0.0001, 0.00001]
    assert [scale.level(math.log(share)) for share in shares] == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        5,
        5,
        6,
        6,
        7,
    ]
    assert scale.level(-1e9) == 7
    assert scale.level_names() == [
        *("≥ 50 %", "≥ 20 %", "≥ 10 %", "≥ 3 %", "≥ 1 %", "≥ 0.1 %", "≥ 0.01 %", "< 0.01 %")
    ]


def test_changes() -> None:
    values = [0.0, 0.09, 0.1, -0.1, 0.5, -0.6, 1.5, -3.9, 4.0, -100.0]
    assert [scale.change(value) for value in values] == [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]
