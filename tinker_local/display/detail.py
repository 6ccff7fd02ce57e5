"""Details of one token: lines of plain text for a fixed-width font."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tinker_local.display.scored_text import Alternative, ScoredText, ScoredToken, TextComparison
from tinker_local.display.visible import bytes_of_text, is_plain, one_line, whole_characters

_BAR = 6  # width of the bar of probability 1, in characters
_COMPARED = 5  # alternatives shown of each model in a comparison
_EIGHTHS = " ▏▎▍▌▋▊▉"
_ISOLATED = "\u2068{}\u2069"  # keeps a right-to-left token from reversing the line


def details(scored: ScoredText) -> list[str]:
    """Return the details of each token: id, log-probability, probability, rank and alternatives."""
    split = _split_characters(scored)
    return [
        "\n".join([_head(token, split.get(i), scored.has_texts), *_score_lines(token, scored.has_texts)])
        for i, token in enumerate(scored.tokens)
    ]


def compared_details(comparison: TextComparison) -> list[str]:
    """Return the details of each token of a comparison; none if the models tokenize differently."""
    first, second = comparison.first, comparison.second
    split = _split_characters(first)
    return [
        "\n".join(
            [
                _head(a, split.get(i), first.has_texts),
                "B − A  " + ("not scored" if difference is None else signed(difference)),
                "",
                "A  " + "\n".join(_score_lines(a, most=_COMPARED)),
                "",
                "B  " + "\n".join(_score_lines(b, most=_COMPARED)),
            ]
        )
        for i, (a, b, difference) in enumerate(
            zip(first.tokens, second.tokens, comparison.differences or (), strict=True)
        )
    ]


def probability(logprob: float) -> str:
    """Return a probability for people: ``42.10 %``, ``3.2e-06``."""
    value = math.exp(logprob)
    return f"{100 * value:.2f} %" if value >= 0.0001 else f"{value:.1e}"


def signed(number: float, digits: int = 4) -> str:
    """Return a number with its sign, + or −; the minus sign is not a hyphen."""
    return f"{number:+.{digits}f}".replace("-", "−")


def number(value: float, digits: int = 4) -> str:
    """Return a number; a negative one has a minus sign, not a hyphen."""
    return f"{value:.{digits}f}".replace("-", "−")


def rank(token: ScoredToken) -> str:
    """Return a token's rank among its alternatives: ``rank 2``, ``rank over 10``; "" without any."""
    if not token.alternatives:
        return ""
    return f"rank {token.rank}" if token.rank else f"rank over {len(token.alternatives)}"


def _split_characters(scored: ScoredText) -> Mapping[int, str]:
    """Return the characters that are spread over several tokens, by the place of each such token."""
    return whole_characters([token.text for token in scored.tokens]) if scored.has_texts else {}


def _head(token: ScoredToken, whole: str | None, has_text: bool) -> str:
    if not has_text:
        return f"id {token.token_id}"
    head = f"{_ISOLATED.format(one_line(token.text))}   id {token.token_id}"
    if not is_plain(token.text):
        head += f"   bytes {bytes_of_text(token.text[:16]).hex(' ')}"
    if whole is not None:
        head += f"   part of {_ISOLATED.format(one_line(whole))}"
    return head


def _score_lines(token: ScoredToken, has_text: bool = True, most: int | None = None) -> list[str]:
    """Return a line with the token's probability, and one for each of ``most`` alternatives."""
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


def _row(place: str, shown: Alternative, token: ScoredToken, has_text: bool) -> str:
    pointer = "▸" if shown.token_id == token.token_id else " "
    share = probability(shown.logprob)
    bar = f"{_bar(math.exp(shown.logprob)):<{_BAR}}"
    text = f"{_ISOLATED.format(one_line(shown.text))}   " if has_text else ""
    return f"{pointer}{place:>4} {share:>9}  {bar}  {text}id {shown.token_id}"


def _bar(share: float) -> str:
    whole, eighths = divmod(round(min(share, 1.0) * _BAR * 8), 8)
    return "█" * whole + (_EIGHTHS[eighths] if eighths else "")


__all__ = ["compared_details", "details", "number", "probability", "rank", "signed"]
