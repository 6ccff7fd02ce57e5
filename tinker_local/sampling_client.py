"""SamplingClient: checks a request, submits it, assembles the response."""

from __future__ import annotations

import logging
import secrets
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinker_local import checks, types
from tinker_local.engine.context_limit import ContextLimit
from tinker_local.engine.engine import Engine
from tinker_local.engine.sequence import Outcome, Request
from tinker_local.futures import APIFuture
from tinker_local.options import Options
from tinker_local.queue_state import QueueState, QueueStateObserver
from tinker_local.tokenizer import Tokenizer
from tinker_local.weights import Weights

logger = logging.getLogger(__name__)


class SamplingClient(QueueStateObserver):
    """Samples from and scores with one model. Get one from ``ServiceClient.create_sampling_client``.

    Methods may be called from any thread and any event loop. A client can be pickled: the other
    process opens the same files with the same options.

    Bad input raises ``BadRequestError`` before anything is computed, and the client stays usable.
    """

    def __init__(self, engine: Engine, options: Options, weights: Weights) -> None:
        self._engine = engine
        self._options = options
        self._weights = weights
        self._tokenizer = Tokenizer(engine.model)
        engine.observe(self)

    def sample(
        self,
        prompt: types.ModelInput,
        num_samples: int,
        sampling_params: types.SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
    ) -> APIFuture[types.SampleResponse]:
        """Generate continuations of a prompt. Returns at once.

        Args:
            prompt: the input tokens, taken as given: nothing is added.
            num_samples: number of independent continuations; the prompt is evaluated once.
            sampling_params: how to draw them.
            include_prompt_logprobs: also score the prompt's tokens.
            topk_prompt_logprobs: report this many most probable tokens at each prompt position, at
                most 1,024.

        Returns:
            A future of the ``SampleResponse``. Cancelling it frees what the request held.

        Raises:
            BadRequestError: an argument is wrong; the message names it and its value.
            RequestFailedError: the client was closed.
        """
        return self._sample(
            prompt, num_samples, sampling_params, include_prompt_logprobs, topk_prompt_logprobs
        )

    async def sample_async(
        self,
        prompt: types.ModelInput,
        num_samples: int,
        sampling_params: types.SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
    ) -> types.SampleResponse:
        """``sample`` as a coroutine."""
        return await self.sample(
            prompt, num_samples, sampling_params, include_prompt_logprobs, topk_prompt_logprobs
        )

    def compute_logprobs(self, prompt: types.ModelInput) -> APIFuture[list[float | None]]:
        """Compute the log-probability of each prompt token given those before it. Returns at once.

        Returns:
            A future of a list aligned with the prompt: natural logarithms under the unmodified model
            (temperature 1, no truncation); None at position 0.

        Raises:
            BadRequestError: the prompt is wrong; the message names the value.
            RequestFailedError: the client was closed.
        """
        future: APIFuture[list[float | None]] = APIFuture()
        self._engine.submit(
            Request(
                prompt=self._prompt_tokens(prompt),
                future=future,
                assemble=_logprobs,
                prompt_logprobs=True,
            )
        )
        return future

    async def compute_logprobs_async(self, prompt: types.ModelInput) -> list[float | None]:
        """``compute_logprobs`` as a coroutine."""
        return await self.compute_logprobs(prompt)

    def get_tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the model file."""
        return self._tokenizer

    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        """Called when requests begin or cease to wait for room; logs it. Override it to do more."""
        logger.info("%s: %s", queue_state.value, queue_state_reason or "no request waits")

    def _sample(
        self,
        prompt: types.ModelInput,
        num_samples: int,
        params: types.SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
        on_token: Callable[[int, int], None] | None = None,
    ) -> APIFuture[types.SampleResponse]:
        """``sample``, with ``on_token(sample index, token)`` called as tokens are drawn."""
        n_vocab, n_ctx = self._engine.model.n_vocab, self._engine.n_ctx
        tokens = self._prompt_tokens(prompt)
        topk = checks.topk_count(topk_prompt_logprobs, "topk_prompt_logprobs", n_vocab)
        seed = secrets.randbits(64) if params.seed is None else checks.seed(params.seed)
        future: APIFuture[types.SampleResponse] = APIFuture()
        self._engine.submit(
            Request(
                prompt=tokens,
                future=future,
                assemble=_response_maker(bool(include_prompt_logprobs), topk),
                num_samples=checks.sample_count(num_samples),
                max_tokens=checks.generation_length(params.max_tokens, len(tokens), n_ctx),
                temperature=checks.temperature(params.temperature),
                top_k=checks.top_k(params.top_k, n_vocab),
                top_p=checks.top_p(params.top_p),
                seed=seed,
                stop=checks.stop_rule(params.stop, n_vocab),
                prompt_logprobs=bool(include_prompt_logprobs),
                topk_prompt_logprobs=topk,
                raw_logprobs=self._options.logprobs_mode == "raw",
                on_token=on_token,
            )
        )
        return future

    def _prompt_tokens(self, prompt: types.ModelInput) -> NDArray[np.int32]:
        return checks.prompt_tokens(prompt, self._engine.model.n_vocab, self._engine.n_ctx)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._weights, self._options)

    def __repr__(self) -> str:
        return f"SamplingClient({str(self._weights)!r}, n_ctx={self._engine.n_ctx})"


def _logprobs(outcome: Outcome) -> list[float | None]:
    return types.logprobs_to_list(outcome.scores.logprobs)


@cache
def _response_maker(include_logprobs: bool, topk: int) -> Callable[[Outcome], types.SampleResponse]:
    def respond(outcome: Outcome) -> types.SampleResponse:
        sequences = [
            types.SampledSequence(sample.stop_reason, sample.tokens, sample.logprobs)
            for sample in outcome.samples
        ]
        scores, alternatives = outcome.scores, None
        if topk:
            scores.topk_logprobs[0] = types.NO_LOGPROB  # nothing comes before position 0
            alternatives = types.TopkLogprobs(scores.topk_ids, scores.topk_logprobs)
        logprobs = scores.logprobs if include_logprobs else None
        return types.SampleResponse(sequences, logprobs, alternatives, outcome.n_cached)

    return respond


_reopened: weakref.WeakValueDictionary[tuple[Weights, Options], Engine] = weakref.WeakValueDictionary()
_reopened_lock = threading.Lock()
_reopened_limit = cache(ContextLimit)


def _reopen(weights: Weights, options: Options) -> SamplingClient:
    """Unpickle a client; those of the same weights in a process share an engine."""
    with _reopened_lock:
        engine = _reopened.get((weights, options))
        if engine is None:
            engine = _reopened[weights, options] = weights.open(
                options, _reopened_limit(options.n_contexts)
            )
    return SamplingClient(engine, options, weights)


__all__ = ["SamplingClient"]
