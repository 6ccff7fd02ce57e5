"""LocalLM: the requests of lm-evaluation-harness, answered by the engine."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import PurePath
from random import Random
from typing import Any, TypeAlias

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from numpy.typing import NDArray

from tinker_local import checks
from tinker_local.errors import BadRequestError
from tinker_local.futures import APIFuture
from tinker_local.lm_eval.collecting import collect, with_progress
from tinker_local.lm_eval.generation import Generation
from tinker_local.lm_eval.opening import length_limit, open_model, refuse_unknown
from tinker_local.sampling_client import SamplingClient
from tinker_local.types import ModelInput, SampleResponse, SamplingParams

Score: TypeAlias = tuple[float, bool]
"""Log-probability of a continuation, and whether greedy decoding would produce it."""
Pair: TypeAlias = tuple[Any, list[int], list[int]]
"""The harness's cache key (None: not cached), token ids of the context, token ids of the continuation."""

_ONLY_SCORE = SamplingParams(max_tokens=0)
_RECENT_TEXTS = 16  # tokenized texts kept: the choices of a question come in a row and share a context

logger = logging.getLogger(__name__)


@register_model("tinker-local")
class LocalLM(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """A model on this machine, with the interface of lm-evaluation-harness.

    The harness asks in three ways: ``loglikelihood`` (score continuations), ``loglikelihood_rolling``
    (score texts) and ``generate_until``. All requests of a call are submitted before the first response is
    waited for, so that the engine computes shared prefixes (few-shot examples, the context of several
    choices) once. Texts are tokenized, and long ones truncated, as in the harness's own ``hf`` model.

    Args:
        model: name or path of a model, or a ``SamplingClient``. None: the base that the adapter names, or
            the default model.
        adapter: LoRA to apply to the model: a GGUF file, a name, or a tinker:// path.
        lora_scale: factor on what the LoRA adds.
        max_length: most tokens that the model reads; a scored text may have one more, its last. Longer
            texts are truncated on the left. None: what the context holds.
        max_gen_toks: most tokens to generate if a task does not say.
        add_bos_token: whether texts begin with BOS. None: as the vocabulary says.
        prefix_token_id: token before a text whose first token is scored. None: BOS, or the end-of-text
            token if there is no BOS.
        seed: seed of all tasks that sample.
        chat_template_args: variables for the chat template.
        enable_thinking: the template variable of this name, which many templates have.
        think_end_token: text (``"</think>"``) or token id after which the answer begins. The text before it
            is dropped, and stop strings have no effect there.
        batch_size, max_batch_size, device, trust_remote_code: accepted because the harness passes them;
            not used. The engine fills batches itself, and ``devices`` says where it computes.
        **options: options of ``ServiceClient``: n_ctx, kv_type, batch_invariant, ...

    Raises:
        BadRequestError: an argument is unknown or impossible, or the file cannot be used.
        NotFoundError: no model has this name; the message lists those that are there.
    """

    def __init__(
        self,
        model: str | SamplingClient | None = None,
        adapter: str | None = None,
        *,
        lora_scale: float = 1.0,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        seed: int = 1234,
        chat_template_args: Mapping[str, Any] | None = None,
        enable_thinking: bool | None = None,
        think_end_token: str | int | None = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
        trust_remote_code: Any = None,
        **options: Any,
    ) -> None:
        del batch_size, max_batch_size, device, trust_remote_code
        super().__init__()
        refuse_unknown(options, ("adapter", *(LocalLM.__init__.__kwdefaults__ or ())))
        if enable_thinking and think_end_token is None:
            raise BadRequestError("enable_thinking needs think_end_token, such as think_end_token=</think>")
        if isinstance(model, SamplingClient):
            if adapter or options or lora_scale != 1:
                raise BadRequestError(
                    "model is an open SamplingClient; leave out adapter, lora_scale and options"
                )
            self._client = model
        else:
            self._client = open_model(model, adapter, lora_scale, options)
        self.tokenizer = self._client.get_tokenizer()
        self._max_length = length_limit(max_length, self._client)
        self._max_gen_toks = checks.integer(max_gen_toks, "max_gen_toks", 1)
        self._add_bos_token = add_bos_token
        self._prefix_token_id = prefix_token_id
        if prefix_token_id is not None:
            checks.token_id(prefix_token_id, "prefix_token_id", self.tokenizer.vocab_size)
        self._seeds = Random(checks.seed(seed))
        self._chat_template_args = dict(chat_template_args or {})
        if enable_thinking is not None:
            self._chat_template_args["enable_thinking"] = enable_thinking
        self._think_end = _id_or_text(think_end_token)
        self._recent = lru_cache(_RECENT_TEXTS)(self.tokenizer.encode)

    @property
    def max_length(self) -> int:
        """Most tokens that the model reads."""
        return self._max_length

    @property
    def max_gen_toks(self) -> int:
        """Most tokens to generate if a task does not say."""
        return self._max_gen_toks

    @property
    def eot_token_id(self) -> int | None:
        """Id of the end-of-text token; None if the vocabulary has none."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """Id of the token that is put before a text whose first token is scored."""
        for token in (self._prefix_token_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        raise BadRequestError(
            "the vocabulary has neither BOS nor an end-of-text token; give prefix_token_id"
        )

    @property
    def tokenizer_name(self) -> str:
        """A name of model and chat template; the harness caches rendered prompts under it."""
        said = [self.tokenizer.chat_template, self._chat_template_args, self._add_bos_token]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
        return f"{PurePath(self._client.get_base_model()).name}-{digest[:16]}"

    def get_model_info(self) -> dict[str, Any]:
        """Return files and options, which the harness writes beside the results."""
        return {
            "weights": self._client.weights.to_json(),
            "options": self._client.options.model_dump(mode="json", exclude_defaults=True),
        }

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a conversation as text.

        If the template refuses the conversation, system messages are left out, with a warning.

        Args:
            chat_history: messages with ``role`` and ``content``.
            add_generation_prompt: end with the head of the assistant's turn; False leaves the last message
                open, to be continued.
        """

        def render(messages: list[dict[str, str]]) -> str:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **self._chat_template_args,
            )
            return text

        try:
            return render(chat_history)
        except BadRequestError:
            others = [message for message in chat_history if message["role"] != "system"]
            if len(others) == len(chat_history):
                raise
            text = render(others)
        logger.warning("the chat template refuses system messages; they are left out")
        return text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return the token ids of a text; BOS is added unless the text begins with it already.

        Args:
            string: the text.
            add_special_tokens: whether to add BOS and the like. None: as ``add_bos_token`` and the
                vocabulary say, unless the text begins with the prefix token's text.
            **kwargs: not used.
        """
        del kwargs
        if add_special_tokens is None:
            return self._encode_after(self.tokenizer.decode(self.prefix_token_id), string)
        return list(self._recent(string, add_special_tokens=add_special_tokens))

    def _encode_after(self, start: str | None, text: str) -> list[int]:
        """Tokenize a text, with BOS and the like unless it begins with ``start`` already."""
        add_special = False if start is not None and text.startswith(start) else self._add_bos_token
        if add_special and self.tokenizer.bos_token_id is not None:
            return [self.tokenizer.bos_token_id, *self._recent(text, add_special_tokens=False)]
        return list(self._recent(text, add_special_tokens=add_special is not False))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Score]:
        """Score continuations, each given its context.

        Args:
            requests: ``args`` are (context, continuation). White space between them counts as part of the
                continuation; an empty context becomes the prefix token.
            disable_tqdm: show no progress bar.

        Raises:
            BadRequestError: a continuation adds no token, or does not fit the context.
        """
        if self._chat_template_args.get("enable_thinking"):
            raise BadRequestError(
                "enable_thinking works only in tasks that generate, and this one scores continuations; "
                "leave it out"
            )
        pairs = (self._pair(*request.args) for request in requests)
        return self._loglikelihood_tokens(with_progress(pairs, len(requests), disable_tqdm), disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts; texts longer than ``max_length`` are scored in windows, each token once.

        Args:
            requests: ``args`` are (text,).
            disable_tqdm: show no progress bar.
        """
        windows = [self._windows(*request.args) for request in requests]
        scores = iter(
            self._loglikelihood_tokens(
                [(None, context, tokens) for text in windows for context, tokens in text], disable_tqdm
            )
        )
        totals = []
        for request, text in zip(requests, windows, strict=True):
            totals.append(math.fsum(next(scores)[0] for _ in text))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, totals[-1])
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate answers.

        Args:
            requests: ``args`` are (context, ``generation_kwargs``); see ``Generation.of``.
            disable_tqdm: show no progress bar.

        Raises:
            BadRequestError: an argument is not supported, or the answer may not fit the context.
        """
        eos = None if self.eot_token_id is None else self.tokenizer.decode(self.eot_token_id)
        generations = [
            Generation.of(request.args[1], eos=eos, max_tokens=self.max_gen_toks, think_end=self._think_end)
            for request in requests
        ]

        def submitted() -> Iterator[APIFuture[SampleResponse]]:
            for request, generation in zip(requests, generations, strict=True):
                context = self._generation_prompt(request.args[0], generation.max_tokens)
                params = generation.params(self._seeds.getrandbits(63))
                yield self._client.sample(ModelInput.from_ints(context), 1, params)

        def read(place: int, response: SampleResponse) -> str:
            answer = generations[place].answer(response.sequences[0].tokens, self.tokenizer)
            self.cache_hook.add_partial("generate_until", requests[place].args, answer)
            return answer

        futures = with_progress(submitted(), len(requests), disable_tqdm)
        return collect(futures, read, "Generating", disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: Iterable[Pair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[Score]:
        """Score tokenized pairs; the name is the harness's, whose ``TemplateLM`` calls it."""
        del kwargs
        keys: list[Any] = []
        continuations: list[NDArray[np.int32]] = []

        def submitted() -> Iterator[APIFuture[SampleResponse]]:
            for key, context, continuation in requests:
                keys.append(key)
                continuations.append(np.array(continuation, np.int32))
                yield self._submit_score(context, continuation)

        def read(place: int, response: SampleResponse) -> Score:
            score = _score(response, continuations[place])
            if keys[place] is not None:
                self.cache_hook.add_partial("loglikelihood", keys[place], score)
            return score

        return collect(submitted(), read, "Scoring", disable_tqdm)

    def _submit_score(self, context: list[int], continuation: list[int]) -> APIFuture[SampleResponse]:
        n = len(continuation)
        if n > self.max_length:
            raise BadRequestError(
                f"a continuation has {n} tokens, but the model reads at most {self.max_length} "
                "(max_length); give a larger n_ctx"
            )
        if n == 0:
            raise BadRequestError(
                f"a continuation adds no token to its context, which ends in "
                f"{self.tokenizer.decode(context[-8:])!r}; correct the task"
            )
        tokens = (context + continuation)[-(self.max_length + 1) :]
        return self._client.sample(
            ModelInput.from_ints(tokens),
            1,
            _ONLY_SCORE,
            include_prompt_logprobs=True,
            topk_prompt_logprobs=1,
            prompt_logprobs_last_n=n,
        )

    def _pair(self, context: str, continuation: str) -> Pair:
        """Tokenize a context and its continuation as the ``hf`` model does."""
        key = (context, continuation)
        before, after = self._encode_pair(context, continuation) if context else ([], [])
        if before:
            return key, before, after
        tokens = self.tok_encode(context + continuation, add_special_tokens=False)
        if tokens[:1] == [self.prefix_token_id]:
            return key, tokens[:1], tokens[1:]
        return key, [self.prefix_token_id], tokens

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """Cut a text into windows ``(context, scored tokens)`` in which each token is scored once."""
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [make_disjoint_window(window) for window in windows]

    def _generation_prompt(self, context: str, max_tokens: int) -> list[int]:
        """Tokenize a prompt; cut it on the left so that ``max_tokens`` more fit.

        BOS is left out where the prompt begins with BOS, whatever the prefix token is: so does ``hf``.
        """
        room = self.max_length - max_tokens
        if room < 1:
            raise BadRequestError(
                f"a task generates up to {max_tokens} tokens, but prompt and answer together may have at "
                f"most {self.max_length} (max_length); give a larger n_ctx, or a smaller max_gen_toks"
            )
        tokens = self._encode_after(self.tokenizer.bos_token, context) or [self.prefix_token_id]
        return tokens[-room:]


def _id_or_text(token: str | int | None) -> str | int | None:
    return int(token) if isinstance(token, str) and token.isdigit() else token


def _score(response: SampleResponse, continuation: NDArray[np.int32]) -> Score:
    logprobs, best = response.prompt_logprobs_np, response.topk_prompt_logprobs_np
    assert logprobs is not None, "they were asked for"
    assert best is not None, "they were asked for"
    n = len(continuation)
    return math.fsum(logprobs[-n:].tolist()), bool((best.token_ids[-n:, 0] == continuation).all())


__all__ = ["LocalLM"]
