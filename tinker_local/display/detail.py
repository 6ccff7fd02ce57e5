"""What is said of one token: lines of plain text for a fixed-width font."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tinker_local.display.reading import Alternative, Comparison, Reading, Token
from tinker_local.display.visible import bytes_of_text, is_plain, one_line, whole_characters

_BAR = 6  # characters of a probability of 1
_COMPARED = 5  # alternatives of each of two models
_EIGHTHS = " ▏▎▍▌▋▊▉"
_ISOLATED = "\u2068{}\u2069"  # so that a right-to-left token does not turn the line around


def details(reading: Reading) -> list[str]:
    """Return what to say of each token: its id, probability, rank and alternatives."""
    wholes = _wholes(reading)
    return [
        "\n".join([_head(token, wholes.get(i), reading.has_texts), *_scored(token, reading.has_texts)])
        for i, token in enumerate(reading.tokens)
    ]


def compared_details(comparison: Comparison) -> list[str]:
    """Return what to say of each token that two models read, where there are differences."""
    first, second = comparison.first, comparison.second
    wholes = _wholes(first)
    return [
        "\n".join(
            [
                _head(a, wholes.get(i), first.has_texts),
                "B − A  " + ("not scored" if difference is None else signed(difference)),
                "",
                "A  " + "\n".join(_scored(a, most=_COMPARED)),
                "",
                "B  " + "\n".join(_scored(b, most=_COMPARED)),
            ]
        )
        for i, (a, b, difference) in enumerate(
            zip(first.tokens, second.tokens, comparison.differences or (), strict=True)
        )
    ]


def probability(logprob: float) -> str:
    """Return the probability as people read it: ``42.10 %``, ``3.2e-06``."""
    value = math.exp(logprob)
    return f"{100 * value:.2f} %" if value >= 0.0001 else f"{value:.1e}"


def signed(number: float, digits: int = 4) -> str:
    """Return a number with its sign; a minus sign, not a hyphen."""
    return f"{number:+.{digits}f}".replace("-", "−")


def number(value: float, digits: int = 4) -> str:
    """Return a number with a minus sign if it is negative."""
    return f"{value:.{digits}f}".replace("-", "−")


def rank(token: Token) -> str:
    """Return a token's place among the alternatives: ``rank 2``; "" if there are none."""
    if not token.alternatives:
        return ""
    return f"rank {token.rank}" if token.rank else f"rank over {len(token.alternatives)}"


def _wholes(reading: Reading) -> Mapping[int, str]:
    return whole_characters([token.text for token in reading.tokens]) if reading.has_texts else {}


def _head(token: Token, whole: str | None, has_text: bool) -> str:
    if not has_text:
        return f"id {token.token_id}"
    head = f"{_ISOLATED.format(one_line(token.text))}   id {token.token_id}"
    if not is_plain(token.text):
        head += f"   bytes {bytes_of_text(token.text[:16]).hex(' ')}"
    if whole is not None:
        head += f"   part of {_ISOLATED.format(one_line(whole))}"
    return head


def _scored(token: Token, has_text: bool = True, most: int | None = None) -> list[str]:
    """Return a line of the token's probability and one for each alternative, ``most`` of them."""
    if token.logprob is None:
        return ["not scored"]
    score = f"{number(token.logprob)}   {probability(token.logprob)}   {rank(token)}".rstrip()
    if not token.alternatives:
        return [score]
    shown = token.alternatives[:most]
    rows = [_row(str(place), other, token, has_text) for place, other in enumerate(shown, start=1)]
    if token.rank is None or token.rank > len(shown):
        place = str(token.rank or f">{len(token.alternatives)}")
        own = Alternative(token.token_id, token.text, token.logprob)
        rows.append(_row(place, own, token, has_text))
    return [score, *rows]


def _row(place: str, shown: Alternative, token: Token, has_text: bool) -> str:
    pointer = "▸" if shown.token_id == token.token_id else " "
    share = probability(shown.logprob)
    text = _ISOLATED.format(one_line(shown.text)) if has_text else f"id {shown.token_id}"
    return f"{pointer}{place:>4} {share:>9}  {_bar(math.exp(shown.logprob)):<{_BAR}}  {text}"


def _bar(share: float) -> str:
    whole, eighths = divmod(round(min(share, 1.0) * _BAR * 8), 8)
    return "█" * whole + (_EIGHTHS[eighths] if eighths else "")


__all__ = ["compared_details", "details", "number", "probability", "rank", "signed"]
