"""HTML of scored texts. Texts, tokens and names are not trusted: all of them pass through ``escape``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from html import escape

from tinker_local.display import scale
from tinker_local.display.scored_text import ScoredText
from tinker_local.display.visible import is_right_to_left, pieces


def surprise_classes(scored: ScoredText) -> list[str]:
    """Return the CSS class of each token, by its log-probability."""
    return [
        "tl-none" if token.logprob is None else f"tl-s{scale.level(token.logprob)}"
        for token in scored.tokens
    ]


def change_classes(differences: Sequence[float | None]) -> list[str]:
    """Return the CSS class of each token, by its difference."""
    return ["tl-none" if d is None else f"tl-c{scale.change(d)}" for d in differences]


def tokens(
    scored: ScoredText,
    classes: Sequence[str],
    details: Sequence[str],
    *,
    label: str = "tokens",
    targets: Collection[int] = (),
) -> str:
    """Return a text with a coloured element for each token.

    Args:
        scored: the text.
        classes: CSS class of each token.
        details: details of each token, shown when it is hovered over or focused.
        label: name of the text for screen readers.
        targets: places of the tokens that links lead to (``#t7``); empty where ids could clash.
    """
    right_to_left = scored.has_texts and is_right_to_left("".join(t.text for t in scored.tokens))
    spans = [
        _span(token_html(token.text), name, detail, f' id="t{i}"' if i in targets else "")
        if scored.has_texts
        else _span(str(token.token_id), name, detail) + " "
        for i, (token, name, detail) in enumerate(zip(scored.tokens, classes, details, strict=True))
    ]
    lines = "".join(f"<div>{line}</div>" for line in _lines(scored, spans))
    direction, ids = "rtl" if right_to_left else "ltr", "" if scored.has_texts else " tl-ids"
    return (
        f'<div class="tl-text{ids}" role="group" aria-label="{escape(label)}" dir="{direction}" lang="" '
        f'translate="no">{lines}</div>'
    )


def _lines(scored: ScoredText, spans: Sequence[str]) -> Iterator[str]:
    """Join the spans of each line; browsers lay out one long element slowly, many lines fast."""
    start = 0
    for i, token in enumerate(scored.tokens, start=1):
        if i == len(spans) or (scored.has_texts and token.text.endswith("\n")):
            yield "".join(spans[start:i])
            start = i


def _span(content: str, name: str, detail: str, identity: str = "") -> str:
    return f'<span class="tl-t {name}" tabindex="0"{identity} data-look="{escape(detail)}">{content}</span>'


def token_html(text: str) -> str:
    """Return a token's text as HTML, with marks for invisible characters.

    A tab or line break is kept behind its mark. A break that ends a token is not: a new block begins there.
    """
    if text and not text.strip(" "):
        return _mark("·" * len(text))
    html = "".join(
        _mark(piece.shown) + (piece.written if piece.written in ("\n", "\t") else "")
        if piece.is_mark
        else escape(piece.shown)
        for piece in pieces(text)
    )
    return html.removesuffix("\n")


def surprise_legend() -> str:
    """Return the legend of the colours of probabilities."""
    return _legend("probability", _names(scale.level_names()))


def change_legend() -> str:
    """Return the legend of the colours of differences."""
    less = [(f"tl-c-{i}", name) for i, name in enumerate(scale.change_names("less"), start=1)]
    more = [(f"tl-c{i}", name) for i, name in enumerate(scale.change_names("more"), start=1)]
    entries = [*reversed(less), ("tl-c0", f"within {scale.DIFFERENCES[0]:g}"), *more]
    return _legend("log-probability, B − A", entries)


def _names(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((f"tl-s{level}", name) for level, name in enumerate(names))


def _legend(said: str, entries: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> str:
    items = "".join(f'<li class="{name}">{escape(text)}</li>' for name, text in entries)
    return f'<ul class="tl-legend"><li class="tl-said">{said}</li>{items}</ul>'


def _mark(shown: str) -> str:
    return f'<i class="tl-m">{escape(shown)}</i>'


__all__ = [
    "change_classes",
    "change_legend",
    "surprise_classes",
    "surprise_legend",
    "token_html",
    "tokens",
]
