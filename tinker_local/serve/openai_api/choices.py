"""What answers are made of: heads, usage, and the tokens of choices with their log-probabilities."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinker_local.serve.openai_api.logprobs import Scored
from tinker_local.types import SampledSequence, SampledToken, SampleResponse


@dataclass(frozen=True, slots=True)
class Head:
    """What all parts of an answer begin with."""

    id: str
    object: str
    created: int
    model: str

    @classmethod
    def new(cls, kind: str, object: str, model: str) -> Head:
        """Return a head with an id of its own, ``KIND-...``."""
        return cls(f"{kind}-{secrets.token_hex(16)}", object, int(time.time()), model)

    def of(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return an answer, or a chunk of one, with these choices."""
        head = {"id": self.id, "object": self.object, "created": self.created, "model": self.model}
        return {**head, "choices": choices, **more}


def usage(prompts: Sequence[Sized], responses: Sequence[SampleResponse]) -> dict[str, Any]:
    """Return the numbers of tokens; drawn ones that are not returned (``best_of``) count, too."""
    n_prompt = sum(map(len, prompts))
    n_drawn = sum(n_tokens(sequence) for response in responses for sequence in response.sequences)
    cached = sum(response.prompt_cache_hit_tokens for response in responses)
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_drawn,
        "total_tokens": n_prompt + n_drawn,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def best(sequences: Sequence[SampledSequence], n: int) -> list[SampledSequence]:
    """Return the n with the highest mean log-probability of a token, the best first; all in order."""
    if len(sequences) == n:
        return list(sequences)
    return sorted(sequences, key=_mean_logprob, reverse=True)[:n]


def _mean_logprob(sequence: SampledSequence) -> float:
    logprobs = sequence.logprobs_np
    return float(np.mean(logprobs)) if logprobs is not None and len(logprobs) else 0.0


def n_tokens(sequence: SampledSequence) -> int:
    """Return the number of drawn tokens."""
    return 0 if sequence.tokens_np is None else len(sequence.tokens_np)


def sample_scored(sequence: SampledSequence) -> Scored:
    """Return drawn tokens with their log-probabilities."""
    nothing: list[Any] = [None] * n_tokens(sequence)
    return Scored(sequence.tokens, sequence.logprobs or nothing, sequence.topk_logprobs or nothing)


def token_scored(token: SampledToken) -> Scored:
    """Return one drawn token with its log-probabilities."""
    return Scored([token], [token.logprob], [token.topk_logprobs])


__all__ = [
    "Head",
    "best",
    "n_tokens",
    "sample_scored",
    "token_scored",
    "usage",
]
