"""Readings as HTML. All that comes from a model, a text or a file's name goes through ``escape``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from html import escape

from tinker_local.display import scale
from tinker_local.display.reading import Reading
from tinker_local.display.visible import is_right_to_left, parts


def surprise_classes(reading: Reading) -> list[str]:
    """Return the class of each token's log-probability."""
    return [
        "tl-none" if token.logprob is None else f"tl-s{scale.level(token.logprob)}"
        for token in reading.tokens
    ]


def change_classes(differences: Sequence[float | None]) -> list[str]:
    """Return the class of each difference."""
    return ["tl-none" if d is None else f"tl-c{scale.change(d)}" for d in differences]


def tokens(
    reading: Reading,
    classes: Sequence[str],
    details: Sequence[str],
    *,
    label: str = "tokens",
    targets: Collection[int] = (),
) -> str:
    """Return a text with a coloured element for each token.

    Args:
        reading: whose tokens.
        classes: the class that colours each.
        details: what hovering over or focusing each shows.
        label: what the text is called for those who hear it.
        targets: places of tokens that links lead to (``#t7``); none where ids could clash.
    """
    right_to_left = reading.has_texts and is_right_to_left("".join(t.text for t in reading.tokens))
    spans = [
        _span(written(token.text), name, detail, f' id="t{i}"' if i in targets else "")
        if reading.has_texts
        else _span(str(token.token_id), name, detail) + " "
        for i, (token, name, detail) in enumerate(zip(reading.tokens, classes, details, strict=True))
    ]
    lines = "".join(f"<div>{line}</div>" for line in _lines(reading, spans))
    direction, ids = "rtl" if right_to_left else "ltr", "" if reading.has_texts else " tl-ids"
    return (
        f'<div class="tl-text{ids}" role="group" aria-label="{escape(label)}" dir="{direction}" lang="" '
        f'translate="no">{lines}</div>'
    )


def _lines(reading: Reading, spans: Sequence[str]) -> Iterator[str]:
    """Yield spans together, up to a token that ends a line: a browser lays out each line for itself."""
    start = 0
    for i, token in enumerate(reading.tokens, start=1):
        if i == len(spans) or (reading.has_texts and token.text.endswith("\n")):
            yield "".join(spans[start:i])
            start = i


def _span(content: str, name: str, detail: str, identity: str = "") -> str:
    return f'<span class="tl-t {name}" tabindex="0"{identity} data-look="{escape(detail)}">{content}</span>'


def written(text: str) -> str:
    """Return a token's text, with marks for what would not be seen.

    Tabs and line ends also act; the last of a token not, since a new block begins there.
    """
    if text and not text.strip(" "):
        return _mark("·" * len(text))
    html = "".join(
        _mark(part.shown) + (part.written if part.written in ("\n", "\t") else "")
        if part.is_mark
        else escape(part.shown)
        for part in parts(text)
    )
    return html.removesuffix("\n")


def surprise_legend() -> str:
    """Return what the colours of probabilities mean."""
    return _legend("probability", _names(scale.level_names()))


def change_legend() -> str:
    """Return what the colours of differences mean."""
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
    "tokens",
    "written",
]
