"""Scored texts on a terminal, in colours."""

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
from tinker_local.display.scored_text import Alternative, ScoredText, TextComparison
from tinker_local.display.visible import one_line, pieces

_LISTED = 10  # most rows of a table
# Styles of levels 0 to 7 on a terminal that has only 16 colours.
_OF_SIXTEEN = ("", "", "black on cyan", "black on cyan", *["black on yellow"] * 2, *["black on red"] * 2)
_Paint = Callable[[int], Style]


def colour_console(wanted: bool | None) -> Console | None:
    """Return a console on standard output if colours are to be used, else None.

    Args:
        wanted: True forces colours, False forbids them. None decides: no colours with ``NO_COLOR`` or on
            a dumb terminal, nor in files and pipes unless ``FORCE_COLOR`` is set.
    """
    if wanted is False:
        return None
    console = Console(force_terminal=wanted, no_color=False if wanted else None, highlight=False)
    if wanted and console.color_system is None:  # a dumb terminal, but colours are forced
        return Console(force_terminal=True, no_color=False, highlight=False, color_system="256")
    return None if console.no_color or console.color_system is None or not console.is_terminal else console


def theme_of_terminal(light: bool | None) -> scale.Theme:
    """Return the theme for the terminal's background.

    Args:
        light: True for a light background; None reads ``COLORFGBG`` (``15;0``: white on black), else dark.
    """
    if light is None:
        light = os.environ.get("COLORFGBG", "").rpartition(";")[2] in ("7", "15")
    return scale.LIGHT if light else scale.DARK


def show(console: Console, shown: ScoredText | TextComparison, theme: scale.Theme) -> None:
    """Print a text in colours, a table of its least probable tokens, and the totals."""
    if isinstance(shown, ScoredText):
        _show_text(console, shown, theme)
    else:
        _show_comparison(console, shown, theme)


def _show_text(console: Console, scored: ScoredText, theme: scale.Theme) -> None:
    paint = _painter(console, theme, scale.surprise_colours, lambda level: level)
    levels = [None if t.logprob is None else scale.level(t.logprob) for t in scored.tokens]
    _print_text(console, scored, levels, paint)
    _print_legend(console, "probability", list(enumerate(scale.level_names())), paint)
    surprising = scored.surprising(_LISTED)
    if surprising:
        table = _table("at", "token", "log-prob", "probability", "rank", "expected")
        for i in surprising:
            token = scored.tokens[i]
            assert token.logprob is not None
            place = str(token.rank or (f">{len(token.alternatives)}" if token.alternatives else ""))
            score = (number(token.logprob), probability(token.logprob))
            table.add_row(str(i), _cell(token.text), *score, place, _best(token.alternatives))
        console.print(table)
    console.print(_totals(scored))


def _show_comparison(console: Console, comparison: TextComparison, theme: scale.Theme) -> None:
    """Print one text coloured by the differences, or both texts if the models tokenize differently."""
    differences = comparison.differences
    if differences is None:
        for letter, scored in (("A", comparison.first), ("B", comparison.second)):
            console.print(Text(f"{letter}  {one_line(scored.name, 200)}", "bold"))
            _show_text(console, scored, theme)
        return
    paint = _painter(console, theme, scale.change_colours, lambda change: 2 * abs(change) - 1)
    changes = [None if d is None else scale.change(d) for d in differences]
    _print_text(console, comparison.first, changes, paint)
    less, more = scale.change_names("less"), scale.change_names("more")
    names = [(-i, name) for i, name in reversed(list(enumerate(less, start=1)))]
    names += [(0, f"within {scale.DIFFERENCES[0]:g}"), *enumerate(more, start=1)]
    _print_legend(console, "log-probability, B − A", names, paint)
    if largest := comparison.largest(_LISTED):
        table = _table("at", "token", "B − A", "A", "B", "A expected", "B expected")
        for i in largest:
            a, b, difference = comparison.first.tokens[i], comparison.second.tokens[i], differences[i]
            assert difference is not None
            assert a.logprob is not None
            assert b.logprob is not None
            scores = (signed(difference), probability(a.logprob), probability(b.logprob))
            best = (_best(a.alternatives, 2), _best(b.alternatives, 2))
            table.add_row(str(i), _cell(a.text), *scores, *best)
        console.print(table)
    for letter, scored in (("A", comparison.first), ("B", comparison.second)):
        console.print(
            Text(f"{letter}  ").append(_totals(scored)).append(f"  {one_line(scored.name, 200)}", "dim")
        )


def _print_text(console: Console, scored: ScoredText, levels: Sequence[int | None], paint: _Paint) -> None:
    text = Text()
    for token, level in zip(scored.tokens, levels, strict=True):
        style = Style(dim=True) if level is None else paint(level)
        for piece in pieces(token.text):
            text.append(piece.shown, style)
            if piece.written == "\n":
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
    """Return a function from a level to a style, in as many colours as the terminal has.

    Args:
        console: the terminal.
        theme: colours for its background.
        colours: background and ink of a level.
        of_sixteen: place of a level in ``_OF_SIXTEEN``.
    """
    if console.color_system in ("standard", "windows"):
        return lambda level: Style.parse(_OF_SIXTEEN[of_sixteen(level)] if level else "")

    def paint(level: int) -> Style:
        pair = colours(theme, level)
        return Style.from_color(_colour(console, pair[1]), _colour(console, pair[0])) if pair else Style()

    return paint


def _colour(console: Console, colour: str) -> Color:
    """Return the nearest colour that the console has.

    rich would do this too, but caches the result of the first console for all others.
    """
    exact = Color.parse(colour)
    return exact.downgrade(ColorSystem.EIGHT_BIT) if console.color_system == "256" else exact


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        is_text = column in ("token",) or column.endswith("expected")
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


def _totals(scored: ScoredText) -> Text:
    mean = f"mean {number(scored.mean)}  perplexity {scored.perplexity:.4f}"
    return Text(f"{len(scored.tokens)} tokens  log-probability {number(scored.total)}  {mean}")


__all__ = ["colour_console", "show", "theme_of_terminal"]
