"""Requests and responses, with the names and fields of ``tinker.types``.

Requests take what they are given: values are checked when a client is called, so that a wrong one is
a ``BadRequestError`` that names it. Responses hold numpy arrays; the lists that Tinker's users read
are made from them on first access.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, SkipValidation

StopReason: TypeAlias = Literal["length", "stop"]

NO_LOGPROB = -99999.0
"""The log-probability in an empty cell of ``TopkLogprobs``, beside token id 0."""


class EncodedTextChunk(BaseModel):
    """A run of token ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: SkipValidation[Sequence[int]]
    type: Literal["encoded_text"] = "encoded_text"

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


ModelInputChunk: TypeAlias = EncodedTextChunk


class ModelInput(BaseModel):
    """The prompt of a request: chunks of token ids, taken as given (no BOS, no template)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunks: list[ModelInputChunk]

    @classmethod
    def from_ints(cls, tokens: Sequence[int]) -> ModelInput:
        """Make a prompt of one chunk from token ids."""
        return cls(chunks=[EncodedTextChunk(tokens=tokens)])

    @classmethod
    def empty(cls) -> ModelInput:
        """Make a prompt without tokens, to append to."""
        return cls(chunks=[])

    def to_ints(self) -> list[int]:
        """Return the token ids of all chunks in one list."""
        return list(chain.from_iterable(chunk.tokens for chunk in self.chunks))

    @property
    def length(self) -> int:
        """Number of tokens in all chunks."""
        return sum(chunk.length for chunk in self.chunks)

    def append(self, chunk: ModelInputChunk) -> ModelInput:
        """Return a new prompt with ``chunk`` at its end."""
        return ModelInput(chunks=[*self.chunks, chunk])

    def append_int(self, token: int) -> ModelInput:
        """Return a new prompt with one more token at its end."""
        return self.append(EncodedTextChunk(tokens=[token]))


class SamplingParams(BaseModel):
    """How to draw a continuation.

    Attributes:
        max_tokens: most tokens to generate; None runs to the end of the context.
        seed: 64-bit seed of the random streams; None takes fresh entropy. Sample ``j`` draws from the
            stream of (seed, j, position), whatever else is running.
        stop: None stops at the model's end-of-generation tokens; ``[]`` never stops early; a string
            or strings stop when the decoded continuation contains one; ints stop at those tokens.
            End-of-generation tokens also stop when a non-empty ``stop`` is given. The tokens that
            completed the stop are part of the result.
        temperature: divides the logits; 0 is greedy (lowest id on ties).
        top_k: keep this many of the most probable tokens; -1 keeps all.
        top_p: then keep the smallest set of most probable tokens with at least this probability.
    """

    max_tokens: SkipValidation[int | None] = None
    seed: SkipValidation[int | None] = None
    stop: SkipValidation[str | Sequence[str] | Sequence[int] | None] = None
    temperature: SkipValidation[float] = 1
    top_k: SkipValidation[int] = -1
    top_p: SkipValidation[float] = 1


@dataclass(frozen=True, slots=True)
class TopkLogprobs:
    """The k most probable tokens at each position, best first, ties by lower id.

    Attributes:
        token_ids: int32, shape (length, k); 0 in empty cells.
        logprobs: float32, shape (length, k), natural log; ``NO_LOGPROB`` in empty cells.
    """

    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]

    def to_lists(self) -> list[list[tuple[int, float]] | None]:
        """Return a list of ``(token_id, logprob)`` for each position, None where all are empty."""
        rows = zip(self.token_ids.tolist(), self.logprobs.tolist(), strict=True)
        lists = (
            [(i, p) for i, p in zip(ids, logprobs, strict=True) if p != NO_LOGPROB]
            for ids, logprobs in rows
        )
        return [pairs or None for pairs in lists]


@dataclass(frozen=True)
class SampledSequence:
    """One continuation of the prompt.

    Attributes:
        stop_reason: "stop" or "length".
        tokens_np: int32, shape (n,): the generated tokens, those that completed the stop included.
        logprobs_np: float32, shape (n,): natural log of each token's probability under the
            distribution it was drawn from (or under the plain model's, with ``logprobs_mode="raw"``).
    """

    stop_reason: StopReason
    tokens_np: NDArray[np.int32] = field(repr=False)
    logprobs_np: NDArray[np.float32] | None = field(default=None, repr=False)

    @cached_property
    def tokens(self) -> list[int]:
        """``tokens_np`` as a list."""
        return [int(token) for token in self.tokens_np.tolist()]

    @cached_property
    def logprobs(self) -> list[float] | None:
        """``logprobs_np`` as a list."""
        if self.logprobs_np is None:
            return None
        return [float(logprob) for logprob in self.logprobs_np.tolist()]


@dataclass(frozen=True)
class SampleResponse:
    """The answer to ``sample``.

    Attributes:
        sequences: one continuation for each of ``num_samples``, in order.
        prompt_logprobs_np: float32, shape (len(prompt),): natural log of P(token i | tokens before
            i) under the unmodified model; NaN at position 0. None if not asked for.
        topk_prompt_logprobs_np: shape (len(prompt), k), aligned with the prompt; position 0 is
            empty. None if not asked for.
        prompt_cache_hit_tokens: prompt tokens that were not computed again.
    """

    sequences: Sequence[SampledSequence]
    prompt_logprobs_np: NDArray[np.float32] | None = field(default=None, repr=False)
    topk_prompt_logprobs_np: TopkLogprobs | None = field(default=None, repr=False)
    prompt_cache_hit_tokens: int = 0

    @property
    def samples(self) -> Sequence[SampledSequence]:
        """``sequences``, by the name it had in the 2025-11 document."""
        return self.sequences

    @cached_property
    def prompt_logprobs(self) -> list[float | None] | None:
        """``prompt_logprobs_np`` as a list, with None for NaN."""
        if self.prompt_logprobs_np is None:
            return None
        return logprobs_to_list(self.prompt_logprobs_np)

    @cached_property
    def topk_prompt_logprobs(self) -> list[list[tuple[int, float]] | None] | None:
        """For each prompt position a list of ``(token_id, logprob)``; None at position 0."""
        if self.topk_prompt_logprobs_np is None:
            return None
        return self.topk_prompt_logprobs_np.to_lists()


def logprobs_to_list(logprobs: NDArray[np.float32]) -> list[float | None]:
    """Return float32 log-probabilities as Python floats, None for NaN."""
    values: list[float | None] = logprobs.tolist()
    for i in np.flatnonzero(np.isnan(logprobs)):
        values[int(i)] = None
    return values


__all__ = [
    "EncodedTextChunk",
    "ModelInput",
    "ModelInputChunk",
    "SampleResponse",
    "SampledSequence",
    "SamplingParams",
    "StopReason",
    "TopkLogprobs",
]
