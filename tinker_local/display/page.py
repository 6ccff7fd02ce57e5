"""HTML page of a scored text or a comparison: one file without scripts that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from convert.files.whole_file import whole_file
from tinker_local.display import markup
from tinker_local.display.detail import compared_details, details, number, probability, rank, signed
from tinker_local.display.scored_text import Alternative, ScoredText, TextComparison
from tinker_local.display.style import page_style
from tinker_local.display.visible import one_line
from tinker_local.errors import BadRequestError

_LISTED = 20  # most rows of the table below the text
_BEST = 3  # alternatives shown in a row
_CONTEXT = 6  # tokens of context before the token of a row

_FOOT = """<footer>A log-probability is the natural logarithm of a token’s probability given those before
it. Hover over a token, or reach it with the tab key, to see what the model expected instead. ↵ is a line
break, ⇥ a tab, dots are spaces; other invisible characters are written as in Python. Made by
tinker-local.</footer>"""

_NO_DIFFERENCE = "The models tokenize the text differently, so there is no difference by token."
_BLUE_AND_ORANGE = "blue where B finds the token more probable, orange where A does"

_SWITCHES = """<fieldset><legend>Theme</legend>
<label><input type="radio" name="tl-theme" id="tl-auto" checked>auto</label>
<label><input type="radio" name="tl-theme" id="tl-light">light</label>
<label><input type="radio" name="tl-theme" id="tl-dark">dark</label></fieldset>
<fieldset><legend>Font</legend><label><input type="checkbox" id="tl-mono">fixed width</label></fieldset>"""


def write_page(path: str | os.PathLike[str], shown: ScoredText | TextComparison) -> None:
    """Write a page; the file appears whole or not at all.

    Raises:
        BadRequestError: the file cannot be written.
    """
    place = check_place(path)
    try:
        with whole_file(place) as file:
            file.write(page(shown))
    except OSError as error:
        raise BadRequestError(f"{place} cannot be written: {error.strerror or error}") from error


def check_place(path: str | os.PathLike[str]) -> Path:
    """Return the path that a page is written to, with links resolved.

    Raises:
        BadRequestError: the directory does not exist, or the path is a directory or a device.
    """
    place = Path(path).resolve()
    if not place.parent.is_dir():
        raise BadRequestError(
            f"{place} cannot be written: there is no directory {place.parent}; make it first"
        )
    if place.exists() and not place.is_file():
        raise BadRequestError(f"{place} cannot be written: it is not a regular file; give another path")
    return place


def page(shown: ScoredText | TextComparison) -> str:
    """Return the HTML of a page."""
    style = page_style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    if isinstance(shown, ScoredText):
        title, body = one_line(shown.name, 200), "\n".join(_scored_text(shown))
    else:
        title = f"{one_line(shown.first.name, 100)} and {one_line(shown.second.name, 100)}"
        body = "\n".join(_comparison(shown))
    return f"""<!DOCTYPE html>
<html lang="en" class="tinker-look">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}: log-probabilities</title>
<style>{style}</style>
</head>
<body>
<header><h1>{escape(title)}<small>log-probabilities</small></h1>
{_SWITCHES}</header>
{body}
{_FOOT}
</body>
</html>
"""


def _scored_text(scored: ScoredText) -> Iterator[str]:
    surprising = scored.surprising(_LISTED)
    yield _totals(scored)
    yield '<a class="tl-skip" href="#after">Skip the tokens</a>'
    yield f'<main><div class="tl-bar">{markup.surprise_legend()}</div>'
    yield markup.tokens(scored, markup.surprise_classes(scored), details(scored), targets=surprising)
    yield '<h2 id="after">Most surprising <span>below 1 %</span></h2>'
    yield _table(
        ("#at", "after", "token", "#log-probability", "#probability", "#rank", "expected"),
        [_surprise_row(scored, i) for i in surprising],
    )
    yield "</main>"


def _comparison(comparison: TextComparison) -> Iterator[str]:
    first, second, differences = comparison.first, comparison.second, comparison.differences
    largest = comparison.largest(_LISTED)
    yield _compared_totals(comparison)
    yield '<a class="tl-skip" href="#after">Skip the tokens</a><main>'
    if differences is None:
        yield f'<p class="tl-quiet">{_NO_DIFFERENCE}</p>'
    else:
        yield f"<h2>Difference <span>{_BLUE_AND_ORANGE}</span></h2>"
        yield f'<div class="tl-bar">{markup.change_legend()}</div>'
        classes = markup.change_classes(differences)
        yield markup.tokens(
            first, classes, compared_details(comparison), label="difference", targets=largest
        )
        yield "<h2>Largest differences</h2>"
        yield _table(
            ("#at", "after", "token", "#B − A", "#A", "#B", "A expected", "B expected"),
            [_difference_row(comparison, i) for i in largest],
        )
    yield f'<h2>Side by side</h2><div class="tl-bar">{markup.surprise_legend()}</div>'
    yield '<div class="tl-beside">'
    for letter, scored in (("A", first), ("B", second)):
        yield f"<section><h2>{letter} <span>{escape(one_line(scored.name, 200))}</span></h2>"
        yield markup.tokens(scored, markup.surprise_classes(scored), details(scored), label=letter)
        yield "</section>"
    yield '</div><div id="after"></div></main>'


def _totals(scored: ScoredText) -> str:
    entries = {
        "tokens": f"{len(scored.tokens):,}",
        "log-probability": number(scored.total),
        "mean": number(scored.mean),
        "perplexity": f"{scored.perplexity:.4f}",
    }
    return (
        '<dl class="tl-totals">'
        + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in entries.items())
        + "</dl>"
    )


def _compared_totals(comparison: TextComparison) -> str:
    a, b = comparison.first, comparison.second
    rows = [
        [
            escape(f"{letter}  {one_line(scored.name, 200)}"),
            f"{len(scored.tokens):,}",
            number(scored.total),
            number(scored.mean),
            f"{scored.perplexity:.4f}",
        ]
        for letter, scored in (("A", a), ("B", b))
    ]
    ratio = f"× {b.perplexity / a.perplexity:.4f}"
    rows.append(["B − A", "", signed(b.total - a.total), signed(b.mean - a.mean), ratio])
    return _table(("", "#tokens", "#log-probability", "#mean", "#perplexity"), rows)


def _surprise_row(scored: ScoredText, i: int) -> list[str]:
    token = scored.tokens[i]
    assert token.logprob is not None
    return [
        *_place(scored, i, markup.surprise_classes(ScoredText("", [token]))[0]),
        number(token.logprob),
        probability(token.logprob),
        escape(rank(token).removeprefix("rank ")),
        _best(token.alternatives, scored.has_texts),
    ]


def _difference_row(comparison: TextComparison, i: int) -> list[str]:
    a, b = comparison.first.tokens[i], comparison.second.tokens[i]
    assert comparison.differences is not None
    difference = comparison.differences[i]
    assert difference is not None
    assert a.logprob is not None
    assert b.logprob is not None
    return [
        *_place(comparison.first, i, markup.change_classes([difference])[0]),
        signed(difference),
        probability(a.logprob),
        probability(b.logprob),
        _best(a.alternatives, comparison.first.has_texts),
        _best(b.alternatives, comparison.second.has_texts),
    ]


def _place(scored: ScoredText, i: int, colour: str) -> list[str]:
    """Return the first cells of a row: the token's place, the text before it, and the token."""
    before = "".join(token.text for token in scored.tokens[max(0, i - _CONTEXT) : i])
    text = one_line(scored.tokens[i].text)
    context = f"<bdi>{escape(_tail(before))}</bdi>" if scored.has_texts and before else ""
    return [f'<a href="#t{i}">{i}</a>', context, f'<bdi class="tl-t {colour}">{escape(text)}</bdi>']


def _tail(text: str) -> str:
    return one_line(text if len(text) <= 32 else text[-32:])


def _best(alternatives: Sequence[Alternative], has_texts: bool) -> str:
    return ", ".join(
        f"<bdi>{escape(one_line(other.text) if has_texts else str(other.token_id))}</bdi> "
        f'<span class="tl-quiet">{probability(other.logprob)}</span>'
        for other in alternatives[:_BEST]
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of HTML cells; a column whose name begins with # holds numbers."""
    if not rows:
        return '<p class="tl-quiet">None.</p>'
    classes = [' class="tl-number"' if column.startswith("#") else "" for column in columns]
    head = "".join(
        f"<th{css}>{column.lstrip('#')}</th>" for column, css in zip(columns, classes, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{css}>{cell}</td>" for cell, css in zip(row, classes, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="tl-scroll"><table><tr>{head}</tr>{body}</table></div>'


__all__ = ["check_place", "page", "write_page"]
