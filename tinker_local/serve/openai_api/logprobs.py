"""Log-probabilities in three forms: of completions, of chats, and vLLM's of prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tinker_local.serve.openai_api.pieces import Pieces

LOWEST = -9999.0
"""Stands for minus infinity, which JSON cannot express; as in vLLM."""

Top: TypeAlias = list[tuple[int, float]] | None


@dataclass(frozen=True, slots=True)
class Scored:
    """Tokens with their log-probabilities, all of one length.

    Attributes:
        tokens: the ids.
        logprobs: None for a first token, which has none.
        tops: the most probable tokens in the place of each, best first.
    """

    tokens: Sequence[int]
    logprobs: Sequence[float | None]
    tops: Sequence[Top]

    def __add__(self, other: Scored) -> Scored:
        return Scored(
            [*self.tokens, *other.tokens],
            [*self.logprobs, *other.logprobs],
            [*self.tops, *other.tops],
        )


def of_completion(pieces: Pieces, scored: Scored, k: int, text_offset: list[int]) -> dict[str, Any]:
    """Return ``choices[].logprobs`` of a completion.

    ``top_logprobs`` has an entry by text for each of the ``k`` best, and one for the token itself. Of two
    tokens with one text, the more probable one's number is there.
    """
    return {
        "tokens": [pieces.name(token) for token in scored.tokens],
        "token_logprobs": [None if value is None else finite(value) for value in scored.logprobs],
        "top_logprobs": [
            None if value is None else _by_name(pieces, token, value, (top or [])[:k])
            for token, value, top in zip(scored.tokens, scored.logprobs, scored.tops, strict=True)
        ],
        "text_offset": text_offset,
    }


def _by_name(
    pieces: Pieces, token: int, logprob: float, top: Sequence[tuple[int, float]]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for one, value in top:  # best first
        found.setdefault(pieces.name(one), finite(value))
    if token not in (one for one, _ in top):
        name = pieces.name(token)
        found[name] = max(found.get(name, -math.inf), finite(logprob))
    return found


def of_chat(pieces: Pieces, scored: Scored, k: int) -> dict[str, Any]:
    """Return ``choices[].logprobs`` of a chat: an entry for each token, with its bytes."""
    return {
        "content": [
            _entry(pieces, token, value or 0.0)
            | {"top_logprobs": [_entry(pieces, *one) for one in (top or [])[:k]]}
            for token, value, top in zip(scored.tokens, scored.logprobs, scored.tops, strict=True)
        ],
        "refusal": None,
    }


def _entry(pieces: Pieces, token: int, logprob: float) -> dict[str, Any]:
    return {"token": pieces.name(token), "logprob": finite(logprob), "bytes": list(pieces.of(token))}


def of_prompt(pieces: Pieces, scored: Scored, k: int) -> list[dict[str, Any] | None]:
    """Return vLLM's ``prompt_logprobs``: by token id, the token itself first, then the ``k`` best.

    A token beyond the best has the rank None: nobody counted how many are more probable.
    """
    return [
        None if value is None else _by_id(pieces, token, value, (top or [])[:k])
        for token, value, top in zip(scored.tokens, scored.logprobs, scored.tops, strict=True)
    ]


def _by_id(pieces: Pieces, token: int, logprob: float, top: Sequence[tuple[int, float]]) -> dict[str, Any]:
    ranks = {one: rank for rank, (one, _) in enumerate(top, start=1)}
    return {
        str(one): {
            "logprob": finite(value),
            "rank": ranks.get(one),
            "decoded_token": pieces.of(one).decode("utf-8", "replace"),
        }
        for one, value in [(token, logprob), *(pair for pair in top if pair[0] != token)]
    }


def finite(value: float) -> float:
    """Return a log-probability that JSON can express."""
    return max(value, LOWEST)


__all__ = ["Scored", "of_chat", "of_completion", "of_prompt"]
