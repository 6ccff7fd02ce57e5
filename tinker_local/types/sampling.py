"""The arguments and the responses of ``sample``.

Requests are not checked when they are made but when a client is called, so that a wrong value raises a
``BadRequestError`` that names it. Responses hold numpy arrays; the lists that Tinker's users read are made
from them on first access.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, SkipValidation

from tinker_local.types.display import in_words
from tinker_local.types.tensor_data import TensorData
from tinker_local.types.topk_logprobs import TopkLogprobs

StopReason: TypeAlias = Literal["length", "stop"]
TopkLists: TypeAlias = list[list[tuple[int, float]] | None]
"""For each position its ``(token_id, logprob)``, best first; None where there is nothing."""


class Detokenizer(Protocol):
    """Turns token ids into text and bytes."""

    def decode(self, token_ids: Any, /) -> str:
        """Return the text of token ids."""

    def token_bytes(self, token_id: int, /) -> bytes:
        """Return the bytes of a token, which may be part of a character."""


class SamplingParams(BaseModel):
    """How to draw a continuation.

    Attributes:
        max_tokens: most tokens to generate; None runs to the end of the context.
        seed: 64-bit seed of the random streams; None takes fresh entropy. Sample ``j`` draws from the
            stream of (seed, j, position), whatever else is running.
        stop: None stops at the model's end-of-generation tokens; ``[]`` never stops early; a string
            or strings stop when the decoded continuation contains one; ints stop at those tokens. A
            list may hold both, which Tinker's may not.
            End-of-generation tokens also stop when a non-empty ``stop`` is given. The tokens that
            completed the stop are part of the result.
        temperature: divides the logits; 0 is greedy (lowest id on ties).
        top_k: keep this many of the most probable tokens; -1 keeps all.
        top_p: then keep the smallest set of most probable tokens with at least this probability.
        min_p: then keep the tokens that are at least this times as probable as the most probable one; 0
            keeps all. This and what follows Tinker's SDK does not have.
        logit_bias: by token id, what is added to its logit: -10,000 to 10,000. An id may be a string of
            digits, as JSON has it.
        presence_penalty: subtracted from the logit of each token that the continuation has: -2 to 2.
        frequency_penalty: subtracted as many times as the continuation has the token: -2 to 2. Both are
            OpenAI's, and count generated tokens only.
        repetition_penalty: logits above 0 of tokens in the prompt or the continuation are divided by it,
            the others multiplied: 0.01 to 100; 1 changes nothing.

    The bias is added first, then repetition, presence and frequency penalties apply, then temperature,
    ``top_k``, ``top_p`` and ``min_p``: the order of vLLM. Log-probabilities of sampled tokens are those of
    the distribution that results.
    """

    max_tokens: SkipValidation[int | None] = None
    seed: SkipValidation[int | None] = None
    stop: SkipValidation[str | Sequence[str] | Sequence[int] | Sequence[str | int] | None] = None
    temperature: SkipValidation[float] = 1
    top_k: SkipValidation[int] = -1
    top_p: SkipValidation[float] = 1
    min_p: SkipValidation[float] = 0
    logit_bias: SkipValidation[Mapping[int, float] | None] = None
    presence_penalty: SkipValidation[float] = 0
    frequency_penalty: SkipValidation[float] = 0
    repetition_penalty: SkipValidation[float] = 1


class SampledToken(int):
    """A token id as it is drawn, for ``on_token``.

    Attributes:
        logprob: as in ``SampledSequence.logprobs``.
        topk_logprobs: the most probable ``(token_id, logprob)`` in its place under the plain model, best
            first; None if not asked for.
    """

    logprob: float
    topk_logprobs: list[tuple[int, float]] | None

    @classmethod
    def of(
        cls, token: int, logprob: float, top: tuple[NDArray[np.int32], NDArray[np.float32]] | None = None
    ) -> SampledToken:
        """Return a token with its log-probability, and the ids and log-probabilities (k,) of the best."""
        sampled = cls(token)
        sampled.logprob = logprob
        sampled.topk_logprobs = top and list(zip(top[0].tolist(), top[1].tolist(), strict=True))
        return sampled


@dataclass(frozen=True)
class SampledSequence:
    """One continuation of the prompt.

    Attributes:
        stop_reason: "stop" or "length".
        sequence_id: a unique name.
        tokens_np: int32, shape (n,): the generated tokens, those that completed the stop included.
        logprobs_np: float32, shape (n,): natural log of each token's probability under the
            distribution it was drawn from (or under the plain model's, with ``logprobs_mode="raw"``).
        topk_logprobs_np: shape (n, k): the most probable tokens in the place of each under the plain
            model (temperature 1, no truncation). None if not asked for.
    """

    stop_reason: StopReason
    sequence_id: str
    tokens_np: NDArray[np.int32] | None = field(default=None, repr=False)
    logprobs_np: NDArray[np.float32] | None = field(default=None, repr=False)
    topk_logprobs_np: TopkLogprobs | None = field(default=None, repr=False)
    _tokens_list: list[int] | None = field(default=None, repr=False)
    _logprobs_list: list[float] | None = field(default=None, repr=False)
    _topk_logprobs_list: TopkLists | None = field(default=None, repr=False)
    _detokenizer: Callable[[], Detokenizer | None] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def tokens(self) -> list[int]:
        """``tokens_np`` as a list."""
        if self._tokens_list is not None:
            return self._tokens_list
        return [] if self.tokens_np is None else [int(token) for token in self.tokens_np.tolist()]

    @cached_property
    def logprobs(self) -> list[float] | None:
        """``logprobs_np`` as a list."""
        if self._logprobs_list is not None or self.logprobs_np is None:
            return self._logprobs_list
        return [float(logprob) for logprob in self.logprobs_np.tolist()]

    @cached_property
    def topk_logprobs(self) -> TopkLists | None:
        """For each generated token a list of ``(token_id, logprob)``."""
        if self._topk_logprobs_list is not None or self.topk_logprobs_np is None:
            return self._topk_logprobs_list
        return self.topk_logprobs_np.to_lists()

    @property
    def text(self) -> str | None:
        """The decoded tokens; None once the client that made the sequence is gone."""
        detokenizer = self._vocabulary()
        return None if detokenizer is None else detokenizer.decode(self.tokens)

    def _vocabulary(self) -> Detokenizer | None:
        return self._detokenizer() if self._detokenizer is not None else None

    def __repr__(self) -> str:
        return f"SampledSequence({in_words(self)})"

    def _repr_html_(self) -> str:
        from tinker_local.display.notebook import in_html  # when something is shown

        return in_html([self], self._vocabulary())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_detokenizer": None}  # which belongs to this process


@dataclass(frozen=True)
class SampleResponse:
    """The answer to ``sample``.

    Attributes:
        sequences: one continuation for each of ``num_samples``, in order.
        prompt_logprobs_np: float32, shape (len(prompt),): natural log of P(token i | tokens before
            i) under the unmodified model; NaN at position 0, and before the last n where only those
            were asked for. None if not asked for.
        topk_prompt_logprobs_np: shape (len(prompt), k), aligned with the prompt; empty where
            ``prompt_logprobs_np`` is NaN. None if not asked for.
        target_prompt_logprobs: float32, in the shape and layout of the request's: row i is of prompt
            position i + 1; 0.0 where the request had -1. None if not asked for.
        prompt_cache_hit_tokens: prompt tokens that came from the cache.
        prompt_alt_tokens: tokens drawn in the place of each prompt token. None if not asked for.
    """

    sequences: Sequence[SampledSequence]
    prompt_logprobs_np: NDArray[np.float32] | None = field(default=None, repr=False)
    topk_prompt_logprobs_np: TopkLogprobs | None = field(default=None, repr=False)
    target_prompt_logprobs: TensorData | None = None
    prompt_cache_hit_tokens: int = 0
    prompt_alt_tokens: PromptAltTokens | None = None
    _prompt_logprobs_list: list[float | None] | None = field(default=None, repr=False)
    _topk_prompt_logprobs_list: TopkLists | None = field(default=None, repr=False)
    _prompt_tokens_np: NDArray[np.int32] | None = field(default=None, repr=False, compare=False)

    @property
    def samples(self) -> Sequence[SampledSequence]:
        """``sequences``, under its name in the 2025-11 API."""
        return self.sequences

    @cached_property
    def prompt_logprobs(self) -> list[float | None] | None:
        """``prompt_logprobs_np`` as a list, with None for NaN."""
        if self._prompt_logprobs_list is not None or self.prompt_logprobs_np is None:
            return self._prompt_logprobs_list
        return logprobs_to_list(self.prompt_logprobs_np)

    @cached_property
    def topk_prompt_logprobs(self) -> TopkLists | None:
        """For each prompt position a list of ``(token_id, logprob)``; None at position 0."""
        if self._topk_prompt_logprobs_list is not None or self.topk_prompt_logprobs_np is None:
            return self._topk_prompt_logprobs_list
        return self.topk_prompt_logprobs_np.to_lists()

    def __repr__(self) -> str:
        parts = [f"sequences=[{', '.join(map(repr, self.sequences[:8]))}"]
        parts[0] += f", and {len(self.sequences) - 8} more]" if len(self.sequences) > 8 else "]"
        if self.prompt_logprobs_np is not None:
            parts.append(f"prompt_logprobs of {len(self.prompt_logprobs_np)} tokens")
        for name in ("topk_prompt_logprobs_np", "target_prompt_logprobs", "prompt_alt_tokens"):
            if getattr(self, name) is not None:
                parts.append(name.removesuffix("_np"))
        return f"SampleResponse({', '.join(parts)})"

    def _repr_html_(self) -> str:
        from tinker_local.display.notebook import in_html

        vocabulary = self.sequences[0]._vocabulary() if self.sequences else None
        prompt = None if self._prompt_tokens_np is None else self._prompt_tokens_np.tolist()
        return in_html(self.sequences, vocabulary, prompt, self.prompt_logprobs, self.topk_prompt_logprobs)


@dataclass(frozen=True)
class PromptAltTokens:
    """Tokens drawn in the place of each prompt token but the first.

    Row i holds k independent draws, with replacement, from the model's distribution of prompt token
    i + 1 at the request's temperature (not cut by ``top_k`` or ``top_p``).

    Attributes:
        tokens: int64, shape (len(prompt) - 1, k); -1 in the place of an image's tokens.
        logprobs: float32, the same shape: the model's log-probabilities of them, at temperature 1.
    """

    tokens: TensorData
    logprobs: TensorData


def logprobs_to_list(logprobs: NDArray[np.float32]) -> list[float | None]:
    """Return float32 log-probabilities as Python floats, None for NaN."""
    values: list[float | None] = logprobs.tolist()
    for i in np.flatnonzero(np.isnan(logprobs)):
        values[int(i)] = None
    return values


__all__ = [
    "PromptAltTokens",
    "SampleResponse",
    "SampledSequence",
    "SampledToken",
    "SamplingParams",
    "StopReason",
    "logprobs_to_list",
]
