"""A page that shows a reading, or two: one file, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path

from tinker_local.display import markup
from tinker_local.display.detail import compared_details, details, number, probability, rank, signed
from tinker_local.display.reading import Alternative, Comparison, Reading
from tinker_local.display.style import page_style
from tinker_local.display.visible import one_line
from tinker_local.errors import BadRequestError

_LISTED = 20  # rows of the tables below the text
_BEST = 3  # alternatives in a row
_CONTEXT = 6  # tokens before the one that a row is about

_FOOT = """<footer>Log-probabilities are natural logarithms of a token’s probability given those before it.
Hover over a token, or go to it with the tab key, to see what the model would rather have written. ↵ is the
end of a line, ⇥ a tab, dots are spaces; what cannot be seen is written as Python writes it. Made by
tinker-local.</footer>"""

_NO_DIFFERENCE = "The two divide the text into different tokens, so there is no difference by token."
_BLUE_AND_ORANGE = "blue where B finds the token more probable, orange where A does"

_SWITCHES = """<fieldset><legend>Theme</legend>
<label><input type="radio" name="tl-theme" id="tl-auto" checked>auto</label>
<label><input type="radio" name="tl-theme" id="tl-light">light</label>
<label><input type="radio" name="tl-theme" id="tl-dark">dark</label></fieldset>
<fieldset><legend>Font</legend><label><input type="checkbox" id="tl-mono">fixed width</label></fieldset>"""


def write_page(path: str | os.PathLike[str], shown: Reading | Comparison) -> None:
    """Write the page of a reading or a comparison; the file appears whole or not at all.

    Raises:
        BadRequestError: the place cannot be written to.
    """
    place = check_place(path)
    partial = place.with_name(f".{place.name[:100]}-{secrets.token_hex(4)}.part")
    try:
        with partial.open("x", encoding="utf-8", newline="\n") as file:
            file.write(page(shown))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, place)
    except OSError as error:
        raise BadRequestError(f"{place} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def check_place(path: str | os.PathLike[str]) -> Path:
    """Return where a page is to be written, links followed.

    Raises:
        BadRequestError: it is there and no file, or its directory is not there.
    """
    place = Path(path).resolve()
    if not place.parent.is_dir():
        raise BadRequestError(f"{place} cannot be written: there is no directory {place.parent}")
    if place.exists() and not place.is_file():
        raise BadRequestError(f"{place} cannot be written: it is there, and no regular file")
    return place


def page(shown: Reading | Comparison) -> str:
    """Return the page of a reading or a comparison as HTML."""
    style = page_style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    if isinstance(shown, Reading):
        title, body = one_line(shown.name, 200), "\n".join(_reading(shown))
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


def _reading(reading: Reading) -> Iterator[str]:
    surprising = reading.surprising(_LISTED)
    yield _totals(reading)
    yield '<a class="tl-skip" href="#after">Skip the tokens</a>'
    yield f'<main><div class="tl-bar">{markup.surprise_legend()}</div>'
    yield markup.tokens(reading, markup.surprise_classes(reading), details(reading), targets=surprising)
    yield '<h2 id="after">Most surprising <span>below 1 %</span></h2>'
    yield _table(
        ("#at", "after", "token", "#log-probability", "#probability", "#rank", "rather"),
        [_surprise_row(reading, i) for i in surprising],
    )
    yield "</main>"


def _comparison(comparison: Comparison) -> Iterator[str]:
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
            ("#at", "after", "token", "#B − A", "#A", "#B", "A rather", "B rather"),
            [_difference_row(comparison, i) for i in largest],
        )
    yield f'<h2>Side by side</h2><div class="tl-bar">{markup.surprise_legend()}</div>'
    yield '<div class="tl-beside">'
    for letter, reading in (("A", first), ("B", second)):
        yield f"<section><h2>{letter} <span>{escape(one_line(reading.name, 200))}</span></h2>"
        yield markup.tokens(reading, markup.surprise_classes(reading), details(reading), label=letter)
        yield "</section>"
    yield '</div><div id="after"></div></main>'


def _totals(reading: Reading) -> str:
    entries = {
        "tokens": f"{len(reading.tokens):,}",
        "log-probability": number(reading.total),
        "mean": number(reading.mean),
        "perplexity": f"{reading.perplexity:.4f}",
    }
    return (
        '<dl class="tl-totals">'
        + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in entries.items())
        + "</dl>"
    )


def _compared_totals(comparison: Comparison) -> str:
    a, b = comparison.first, comparison.second
    rows = [
        [
            escape(f"{letter}  {one_line(reading.name, 200)}"),
            f"{len(reading.tokens):,}",
            number(reading.total),
            number(reading.mean),
            f"{reading.perplexity:.4f}",
        ]
        for letter, reading in (("A", a), ("B", b))
    ]
    ratio = f"× {b.perplexity / a.perplexity:.4f}"
    rows.append(["B − A", "", signed(b.total - a.total), signed(b.mean - a.mean), ratio])
    return _table(("", "#tokens", "#log-probability", "#mean", "#perplexity"), rows)


def _surprise_row(reading: Reading, i: int) -> list[str]:
    token = reading.tokens[i]
    assert token.logprob is not None
    return [
        *_place(reading, i, markup.surprise_classes(Reading("", [token]))[0]),
        number(token.logprob),
        probability(token.logprob),
        escape(rank(token).removeprefix("rank ")),
        _best(token.alternatives, reading.has_texts),
    ]


def _difference_row(comparison: Comparison, i: int) -> list[str]:
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


def _place(reading: Reading, i: int, colour: str) -> list[str]:
    """Return the cells that say which token a row is about: its number, context, and itself."""
    before = "".join(token.text for token in reading.tokens[max(0, i - _CONTEXT) : i])
    text = one_line(reading.tokens[i].text)
    context = f"<bdi>{escape(_tail(before))}</bdi>" if reading.has_texts and before else ""
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
    """Return a table; columns whose name begins with # hold numbers. Cells are HTML."""
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
