"""Answers: the engine's outcomes as responses of ``tinker.types``."""

from __future__ import annotations

import itertools
import os
import secrets
import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinker_local import types
from tinker_local.engine.request import Outcome, SampleOutcome
from tinker_local.engine.scores import Alternatives, Scores
from tinker_local.telemetry import Telemetry
from tinker_local.tokenizer import Tokenizer
from tinker_local.types.sampling import logprobs_to_list
from tinker_local.types.topk_logprobs import NO_LOGPROB

_numbers = itertools.count()
_process = {0: ""}  # pid -> a name for it: a forked process has another


@dataclass(frozen=True, slots=True)
class Answer:
    """Makes a ``SampleResponse`` of an outcome; called on the thread pool.

    Attributes:
        telemetry: counts every outcome.
        detokenizer: decodes the tokens when a response is shown, as long as its client lives.
        logprobs: whether the prompt's log-probabilities are reported.
        first: the first position at which log-probabilities and alternatives are reported.
        topk: alternatives reported at each prompt position.
        targets: the request's ``target_prompt_logprobs``, for the layout of the answer.
        prompt: the prompt's tokens, for a notebook to show with their log-probabilities.
    """

    telemetry: Telemetry
    detokenizer: weakref.ref[Tokenizer]
    logprobs: bool = False
    first: int = 1
    topk: int = 0
    targets: types.TensorData | None = None
    prompt: NDArray[np.int32] | None = None

    def __call__(self, outcome: Outcome) -> types.SampleResponse:
        """Return the response."""
        self.telemetry.notice_outcome(outcome)
        name = f"{_process_name()}-{next(_numbers)}"
        scores = outcome.scores
        scores.logprobs[: self.first] = np.nan  # more may be known than was asked for
        return types.SampleResponse(
            [self._sequence(sample, f"{name}-{i}") for i, sample in enumerate(outcome.samples)],
            scores.logprobs if self.logprobs else None,
            self._topk(scores) if self.topk else None,
            None if self.targets is None else _targets(self.targets, outcome),
            outcome.n_cached,
            None if outcome.alternatives is None else _alternatives(outcome.alternatives),
            _prompt_tokens_np=self.prompt,
        )

    def _sequence(self, sample: SampleOutcome, name: str) -> types.SampledSequence:
        top = None
        if sample.topk_ids is not None and sample.topk_logprobs is not None:
            top = types.TopkLogprobs(sample.topk_ids, sample.topk_logprobs)
        return types.SampledSequence(
            sample.stop_reason, name, sample.tokens, sample.logprobs, top, _detokenizer=self.detokenizer
        )

    def _topk(self, scores: Scores) -> types.TopkLogprobs:
        scores.topk_ids[: self.first] = 0
        scores.topk_logprobs[: self.first] = NO_LOGPROB
        return types.TopkLogprobs(scores.topk_ids, scores.topk_logprobs)


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Makes the list that ``compute_logprobs`` returns; attributes as in ``Answer``."""

    telemetry: Telemetry
    first: int = 1

    def __call__(self, outcome: Outcome) -> list[float | None]:
        """Return the log-probabilities of the prompt's tokens."""
        self.telemetry.notice_outcome(outcome)
        outcome.scores.logprobs[: self.first] = np.nan
        return logprobs_to_list(outcome.scores.logprobs)


def _targets(asked: types.TensorData, outcome: Outcome) -> types.TensorData:
    return types.TensorData(
        outcome.target_logprobs,
        "float32",
        asked.shape,
        asked.sparse_crow_indices,
        asked.sparse_col_indices,
    )


def _alternatives(found: Alternatives) -> types.PromptAltTokens:
    return types.PromptAltTokens(
        types.TensorData.from_numpy(found.tokens.astype(np.int64)),
        types.TensorData.from_numpy(found.logprobs),
    )


def _process_name() -> str:
    pid = os.getpid()
    if pid not in _process:
        _process.clear()
        _process[pid] = secrets.token_hex(8)
    return _process[pid]


__all__ = ["Answer", "Logprobs"]
