"""SamplingClient: checks a request, submits it, assembles the response."""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from tinker_local import checks, types
from tinker_local.answers import Answer, Logprobs
from tinker_local.engine.engine import Engine
from tinker_local.engine.request import Request
from tinker_local.engine.sharing import ContextLimit
from tinker_local.errors import BadRequestError, shown
from tinker_local.futures import APIFuture, Ready, when_done
from tinker_local.options import Options
from tinker_local.prompts import Cells, read_prompt
from tinker_local.queue_state import QueueState, QueueStateObserver
from tinker_local.retry import Retrier, RetryConfig
from tinker_local.store.model_store import ModelStore
from tinker_local.telemetry import Telemetry, TelemetryProvider
from tinker_local.tokenizer import Tokenizer
from tinker_local.weights import Weights

T = TypeVar("T")

logger = logging.getLogger(__name__)


class SamplingClient(Ready, QueueStateObserver, TelemetryProvider):
    """Samples from and scores with one model. Get one from ``ServiceClient.create_sampling_client``.

    Methods may be called from any thread and any event loop. A client can be pickled: the other process
    opens the same files with the same options. Awaiting a client, or its ``result()``, gives the client.

    Bad input raises ``BadRequestError`` before anything is computed, and the client stays usable.
    """

    def __init__(
        self,
        engine: Engine,
        options: Options,
        weights: Weights,
        *,
        base_model: str | None = None,
        retry_config: RetryConfig | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._engine = engine
        self._options = options
        self._weights = weights
        self._base_model = base_model or weights.path.stem
        self._retry_config = retry_config
        self._retrier = retry_config and Retrier(retry_config, engine.submit)
        self._telemetry = Telemetry(telemetry)
        self._tokenizer = Tokenizer(engine.model)
        self._plain = Answer(self._telemetry, weakref.ref(self._tokenizer))  # shared by most requests
        self._plain_logprobs = Logprobs(self._telemetry)
        self._images = ModelStore(options.models_dir).directory / "images"
        engine.observe(self)

    @property
    def weights(self) -> Weights:
        """The files of this client: ``path`` of the model, ``adapter_path`` and ``lora_scale``."""
        return self._weights

    @property
    def options(self) -> Options:
        """The options of this client, under ``ServiceClient``'s names."""
        return self._options

    @property
    def n_ctx(self) -> int:
        """Most tokens of one request: its prompt and one continuation together.

        A prompt that is only scored (``max_tokens=0``) may have one more.
        """
        return self._engine.n_ctx

    def sample(
        self,
        prompt: types.ModelInput,
        num_samples: int,
        sampling_params: types.SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
        topk_sample_logprobs: int = 0,
        target_prompt_logprobs: types.TensorData | None = None,
        prompt_alt_tokens_k: int = 0,
        prompt_logprobs_last_n: int | None = None,
        *,
        on_token: Callable[[int, types.SampledToken], None] | None = None,
    ) -> APIFuture[types.SampleResponse]:
        """Generate continuations of a prompt. Returns at once.

        Args:
            prompt: the tokens and images to continue, taken as given: nothing is added.
            num_samples: number of independent continuations; the prompt is evaluated once.
            sampling_params: how to draw them.
            include_prompt_logprobs: also score the prompt's tokens.
            topk_prompt_logprobs: number of most probable tokens to report at each prompt position, at
                most 1,024.
            topk_sample_logprobs: number of most probable tokens to report in the place of each sampled
                token, at most 1,024.
            target_prompt_logprobs: ids to score: int64, shape (len(prompt) - 1, K), dense or CSR. Cell
                [i, j] is scored at prompt position i + 1; -1 leaves a cell empty.
            prompt_alt_tokens_k: draw this many tokens in the place of each prompt token but the first, at
                most 1,024; see ``types.PromptAltTokens``.
            prompt_logprobs_last_n: score only the last n tokens, from 1 to len(prompt) - 1; the tokens
                before them can come from the cache. Applies to ``include_prompt_logprobs`` and
                ``topk_prompt_logprobs``.
            on_token: called with (sample index, token) for each token soon after it is drawn, in order, on
                a thread for callbacks. The token is an int with ``logprob`` and ``topk_logprobs``. If the
                callback blocks, only this request waits: its result comes after its tokens. An error in it
                ends the request. Where a ``RetryConfig`` retries a request, its tokens come again from the
                first.

        Returns:
            A future of the ``SampleResponse``. Cancelling it frees what the request held.

        Raises:
            BadRequestError: an argument is wrong; the message names it and its value.
            RequestFailedError: the client was closed.
        """
        n_vocab, params = self._engine.model.n_vocab, sampling_params
        logprobs = bool(include_prompt_logprobs)
        scores = (
            logprobs or topk_prompt_logprobs or target_prompt_logprobs is not None or prompt_alt_tokens_k
        )
        cells = self._read(prompt, only_scored=bool(scores) and params.max_tokens == 0)
        tokens = cells.tokens
        first = checks.first_scored(prompt_logprobs_last_n, len(tokens), logprobs)
        topk = checks.topk_count(topk_prompt_logprobs, "topk_prompt_logprobs", n_vocab)
        asked = targets = None
        if target_prompt_logprobs is not None:
            asked, targets = checks.targets(target_prompt_logprobs, len(tokens), n_vocab)
            for placed in cells.images:
                checks.no_targets(targets, placed.start, placed.stop)
        answer = self._plain
        if logprobs or topk or asked is not None:
            answer = replace(answer, logprobs=logprobs, first=first, topk=topk, targets=asked)
        if logprobs and not cells.images:
            answer = replace(answer, prompt=tokens)
        future: APIFuture[types.SampleResponse] = APIFuture()
        return self._submit(
            future,
            Request(
                prompt=tokens,
                images=cells.images,
                future=future,
                assemble=answer,
                reads_last=len(tokens) <= self.n_ctx,
                num_samples=checks.sample_count(num_samples),
                max_tokens=checks.generation_length(params.max_tokens, len(tokens), self.n_ctx),
                temperature=checks.temperature(params.temperature),
                top_k=checks.top_k(params.top_k, n_vocab),
                top_p=checks.top_p(params.top_p),
                min_p=checks.min_p(getattr(params, "min_p", 0)),  # Tinker's parameters have none of these
                logit_rule=checks.logit_rule(params, cells.text, n_vocab),
                seed=secrets.randbits(64) if params.seed is None else checks.seed(params.seed),
                stop=checks.stop_rule(params.stop, n_vocab),
                prompt_logprobs=logprobs,
                topk_prompt_logprobs=topk,
                prompt_logprobs_from=first,
                topk_sample_logprobs=checks.topk_count(
                    topk_sample_logprobs, "topk_sample_logprobs", n_vocab
                ),
                targets=targets,
                prompt_alt_tokens_k=checks.alternatives_count(prompt_alt_tokens_k),
                raw_logprobs=self._options.logprobs_mode == "raw",
                on_token=on_token,
            ),
        )

    async def sample_async(
        self,
        prompt: types.ModelInput,
        num_samples: int,
        sampling_params: types.SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
        topk_sample_logprobs: int = 0,
        target_prompt_logprobs: types.TensorData | None = None,
        prompt_alt_tokens_k: int = 0,
        prompt_logprobs_last_n: int | None = None,
        *,
        on_token: Callable[[int, types.SampledToken], None] | None = None,
    ) -> types.SampleResponse:
        """``sample`` as a coroutine."""
        return await self.sample(
            prompt,
            num_samples,
            sampling_params,
            include_prompt_logprobs,
            topk_prompt_logprobs,
            topk_sample_logprobs,
            target_prompt_logprobs,
            prompt_alt_tokens_k,
            prompt_logprobs_last_n,
            on_token=on_token,
        )

    def compute_logprobs(
        self, prompt: types.ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> APIFuture[list[float | None]]:
        """Compute the log-probability of each prompt token given those before it. Returns at once.

        Args:
            prompt: the tokens and images.
            prompt_logprobs_last_n: score only the last n tokens, from 1 to len(prompt) - 1.

        Returns:
            A future of a list aligned with the prompt: natural logarithms under the unmodified model
            (temperature 1, no truncation); None at position 0, at those of images, and where nothing was
            scored.

        Raises:
            BadRequestError: an argument is wrong; the message names the value.
            RequestFailedError: the client was closed.
        """
        cells = self._read(prompt, only_scored=True)
        tokens = cells.tokens
        first = checks.first_scored(prompt_logprobs_last_n, len(tokens), included=True)
        future: APIFuture[list[float | None]] = APIFuture()
        return self._submit(
            future,
            Request(
                prompt=tokens,
                images=cells.images,
                future=future,
                assemble=self._plain_logprobs if first == 1 else Logprobs(self._telemetry, first),
                reads_last=len(tokens) <= self.n_ctx,
                prompt_logprobs=True,
                prompt_logprobs_from=first,
            ),
        )

    async def compute_logprobs_async(
        self, prompt: types.ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> list[float | None]:
        """``compute_logprobs`` as a coroutine."""
        return await self.compute_logprobs(prompt, prompt_logprobs_last_n)

    def count_tokens(self, prompt: types.ModelInput) -> int:
        """Return the number of a prompt's tokens, with those that its images take.

        Raises:
            BadRequestError: a token or an image is wrong, or they are too many.
        """
        return len(self._read(prompt, only_scored=True).tokens)

    def get_tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the model file."""
        return self._tokenizer

    def get_base_model(self) -> str:
        """Return the base model's name as it was given, else the name of its file."""
        return self._base_model

    async def get_base_model_async(self) -> str:
        """``get_base_model`` as a coroutine."""
        return self._base_model

    def get_telemetry(self) -> Telemetry:
        """Return the counters of this client's requests; they stay in this process."""
        return self._telemetry

    def get_sampler_handle(self) -> str:
        """Return a string that ``from_sampler_handle`` opens in another process."""
        state = {"weights": self._weights.to_json(), "base_model": self._base_model}
        state["options"] = self._options.model_dump(mode="json")
        return base64.urlsafe_b64encode(json.dumps(state).encode()).decode()

    @staticmethod
    def from_sampler_handle(handle: str, *, api_key: str | None = None) -> SamplingClient:
        """Open the client that a handle stands for; ``api_key`` is not used.

        Raises:
            BadRequestError: the handle is malformed, or one of its files cannot be used.
            NotFoundError: one of its files is gone.
        """
        del api_key
        try:
            state = json.loads(base64.urlsafe_b64decode(handle))
            weights = Weights.from_json(state["weights"])
            options, base_model = Options(**state["options"]), str(state["base_model"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadRequestError(
                f"handle is {shown(handle)}; it must be what get_sampler_handle returned ({error!r})"
            ) from error
        return _reopen(weights, options, base_model)

    def observe(self, observer: QueueStateObserver) -> None:
        """Tell an observer, as long as it lives, when requests begin or cease to wait for room."""
        self._engine.observe(observer)

    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        """Log that requests begin or cease to wait for room. Override this to do more."""
        logger.info("%s: %s", queue_state.value, queue_state_reason or "no request waits")

    def _submit(self, future: APIFuture[T], request: Request) -> APIFuture[T]:
        (self._retrier or self._engine).submit(request)
        self._telemetry.notice_request()
        when_done(future, self._telemetry.notice_end)
        return future

    def _read(self, prompt: types.ModelInput, *, only_scored: bool) -> Cells:
        engine = self._engine
        return read_prompt(
            prompt,
            engine.model.n_vocab,
            self.n_ctx,
            engine.find_image,
            self._images,
            only_scored=only_scored,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._weights, self._options, self._base_model, self._retry_config)

    def __repr__(self) -> str:
        return f"SamplingClient({str(self._weights)!r}, n_ctx={self.n_ctx})"


class _Reopened:
    """Engines of clients that came from other processes; clients of the same weights share one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.engines: weakref.WeakValueDictionary[tuple[object, ...], Engine] = (
            weakref.WeakValueDictionary()
        )
        self.limit = ContextLimit()


_reopened = {os.getpid(): _Reopened()}


def _reopen(
    weights: Weights, options: Options, base_model: str, retry_config: RetryConfig | None = None
) -> SamplingClient:
    """Open what a pickled client or a handle stands for."""
    own = _reopened.setdefault(os.getpid(), _Reopened())  # an engine does not live on in a forked process
    with own.lock:
        key = (weights, weights.version(), options)
        engine = own.engines.get(key)
        if engine is None:
            engine = own.engines[key] = weights.open(options, own.limit)
    return SamplingClient(engine, options, weights, base_model=base_model, retry_config=retry_config)


__all__ = ["SamplingClient"]
