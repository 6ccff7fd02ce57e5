"""Where a sequence starts: how much of it is cached and can be used."""

from __future__ import annotations

from dataclasses import dataclass

from tinker_local.engine.prefix_cache import Match, PrefixCache, Row
from tinker_local.engine.scores import Scores
from tinker_local.engine.sequence import Prompt, Sample


@dataclass(frozen=True, slots=True)
class Start:
    """A cached beginning.

    Attributes:
        match: the cells to start from.
        row: the logits after them, if they were kept; else there is a token left whose row says what
            comes next.
        n_scored: tokens, from the first, of which all wanted scores are known.
        scores: those scores, in pieces with their places.
    """

    match: Match
    row: Row | None = None
    n_scored: int = 0
    scores: tuple[tuple[int, Scores], ...] = ()


def start_of_prompt(cache: PrefixCache, prompt: Prompt) -> Start:
    """Find where to start a prompt.

    Its last token is computed again unless the row of logits after it was kept; where it is scored,
    so is the last token with a known score, whose row scores the next.
    """
    tokens, wanted = prompt.tokens, prompt.request.wanted
    if not prompt.request.scores_prompt:
        match = cache.match(tokens)
        if match.length == len(tokens) and match.row is not None:
            return Start(match, match.row)
        return Start(cache.match(tokens[:-1]))
    if prompt.n_scored > wanted.first:  # it was paused, and knows its scores itself
        return Start(cache.match(tokens[: prompt.first_row]))
    match = cache.match_scored(tokens, wanted)
    n_scored = max(wanted.first, match.n_scored)
    scores = tuple(cache.known_scores(match, wanted.first))
    if n_scored == match.length and match.row is not None:
        return Start(match, match.row, n_scored, scores)
    if n_scored == len(tokens) and not prompt.samples:
        return Start(match, None, n_scored, scores)
    return Start(cache.shortened(match, min(match.length, n_scored - 1)), None, n_scored, scores)


def start_of_sample(cache: PrefixCache, sample: Sample) -> Start:
    """Find where to start a sample: all but its last token can be cached."""
    home = sample.prompt.id
    if home >= 0 and len(sample.drawn) == 1:
        return Start(cache.whole(home))
    match = cache.match(sample.tokens[:-1])
    if home >= 0 and match.length < sample.prompt.length:
        return Start(cache.whole(home))
    return Start(match)
