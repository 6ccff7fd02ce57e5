"""Readings in a terminal that has colours."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from rich.color import Color, ColorSystem
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from tinker_local.display import scale
from tinker_local.display.detail import number, probability, signed
from tinker_local.display.reading import Alternative, Comparison, Reading
from tinker_local.display.visible import one_line, parts

_LISTED = 10  # rows of a table
_OF_SIXTEEN = ("", "", "black on cyan", "black on cyan", *["black on yellow"] * 2, *["black on red"] * 2)
_Paint = Callable[[int], Style]


def colour_console(wanted: bool | None) -> Console | None:
    """Return a console on standard output if colours are to be used, else None.

    Args:
        wanted: True for colours wherever the output goes, False for none. None asks: ``NO_COLOR`` and a
            dumb terminal have none, files and pipes have none unless ``FORCE_COLOR`` is set.
    """
    if wanted is False:
        return None
    console = Console(force_terminal=wanted, no_color=False if wanted else None, highlight=False)
    if wanted and console.color_system is None:  # a dumb terminal; somebody wants colours all the same
        return Console(force_terminal=True, no_color=False, highlight=False, color_system="256")
    return None if console.no_color or console.color_system is None or not console.is_terminal else console


def theme_of_terminal(light: bool | None) -> scale.Theme:
    """Return the colours that go with the terminal's background.

    Args:
        light: whether it is light; None for what ``COLORFGBG`` says (``15;0``: white on black), else dark.
    """
    if light is None:
        light = os.environ.get("COLORFGBG", "").rpartition(";")[2] in ("7", "15")
    return scale.LIGHT if light else scale.DARK


def show(console: Console, shown: Reading | Comparison, theme: scale.Theme) -> None:
    """Print a text in colours, what its least probable tokens could have been, and the totals."""
    if isinstance(shown, Reading):
        _show_reading(console, shown, theme)
    else:
        _show_comparison(console, shown, theme)


def _show_reading(console: Console, reading: Reading, theme: scale.Theme) -> None:
    paint = _painter(console, theme, scale.surprise_colours, lambda level: level)
    levels = [None if t.logprob is None else scale.level(t.logprob) for t in reading.tokens]
    _print_text(console, reading, levels, paint)
    _print_legend(console, "probability", list(enumerate(scale.level_names())), paint)
    surprising = reading.surprising(_LISTED)
    if surprising:
        table = _table("at", "token", "log-prob", "probability", "rank", "rather")
        for i in surprising:
            token = reading.tokens[i]
            assert token.logprob is not None
            place = str(token.rank or (f">{len(token.alternatives)}" if token.alternatives else ""))
            score = (number(token.logprob), probability(token.logprob))
            table.add_row(str(i), _cell(token.text), *score, place, _best(token.alternatives))
        console.print(table)
    console.print(_totals(reading))


def _show_comparison(console: Console, comparison: Comparison, theme: scale.Theme) -> None:
    differences = comparison.differences
    if differences is None:
        for letter, reading in (("A", comparison.first), ("B", comparison.second)):
            console.print(Text(f"{letter}  {one_line(reading.name, 200)}", "bold"))
            _show_reading(console, reading, theme)
        return
    paint = _painter(console, theme, scale.change_colours, lambda change: 2 * abs(change) - 1)
    changes = [None if d is None else scale.change(d) for d in differences]
    _print_text(console, comparison.first, changes, paint)
    less, more = scale.change_names("less"), scale.change_names("more")
    names = [(-i, name) for i, name in reversed(list(enumerate(less, start=1)))]
    names += [(0, f"within {scale.DIFFERENCES[0]:g}"), *enumerate(more, start=1)]
    _print_legend(console, "log-probability, B − A", names, paint)
    if largest := comparison.largest(_LISTED):
        table = _table("at", "token", "B − A", "A", "B", "A rather", "B rather")
        for i in largest:
            a, b, difference = comparison.first.tokens[i], comparison.second.tokens[i], differences[i]
            assert difference is not None
            assert a.logprob is not None
            assert b.logprob is not None
            scores = (signed(difference), probability(a.logprob), probability(b.logprob))
            best = (_best(a.alternatives, 2), _best(b.alternatives, 2))
            table.add_row(str(i), _cell(a.text), *scores, *best)
        console.print(table)
    for letter, reading in (("A", comparison.first), ("B", comparison.second)):
        console.print(
            Text(f"{letter}  ").append(_totals(reading)).append(f"  {one_line(reading.name, 200)}", "dim")
        )


def _print_text(console: Console, reading: Reading, levels: Sequence[int | None], paint: _Paint) -> None:
    text = Text()
    for token, level in zip(reading.tokens, levels, strict=True):
        style = Style(dim=True) if level is None else paint(level)
        for part in parts(token.text):
            text.append(part.shown, style)
            if part.written == "\n":
                text.append("\n")
    console.print(text, soft_wrap=True)
    console.print()


def _print_legend(console: Console, said: str, names: Sequence[tuple[int, str]], paint: _Paint) -> None:
    legend = Text(said + " ", "dim")
    for value, name in names:
        legend.append(f" {name} ", paint(value) + Style(dim=False))
    console.print(legend)
    console.print()


def _painter(
    console: Console,
    theme: scale.Theme,
    colours: Callable[[scale.Theme, int], tuple[str, str] | None],
    of_sixteen: Callable[[int], int],
) -> _Paint:
    """Return what makes a style of a level, in as many colours as there are."""
    if console.color_system in ("standard", "windows"):
        return lambda level: Style.parse(_OF_SIXTEEN[of_sixteen(level)] if level else "")

    def paint(level: int) -> Style:
        pair = colours(theme, level)
        return Style.from_color(_colour(console, pair[1]), _colour(console, pair[0])) if pair else Style()

    return paint


def _colour(console: Console, colour: str) -> Color:
    """Return the nearest colour there is; rich would keep that of the first console it was printed on."""
    exact = Color.parse(colour)
    return exact.downgrade(ColorSystem.EIGHT_BIT) if console.color_system == "256" else exact


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        is_text = column in ("token",) or column.endswith("rather")
        table.add_column(
            column, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold"
        )
    return table


def _cell(text: str) -> Text:
    return Text(one_line(text))


def _best(alternatives: Sequence[Alternative], most: int = 3) -> Text:
    best = Text()
    for place, other in enumerate(alternatives[:most]):
        best.append("  " if place else "").append(one_line(other.text)).append(
            "\xa0" + probability(other.logprob).replace(" ", "\xa0"), "dim"
        )
    return best


def _totals(reading: Reading) -> Text:
    mean = f"mean {number(reading.mean)}  perplexity {reading.perplexity:.4f}"
    return Text(f"{len(reading.tokens)} tokens  log-probability {number(reading.total)}  {mean}")


__all__ = ["colour_console", "show", "theme_of_terminal"]
