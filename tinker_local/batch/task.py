"""What a line asks becomes a request, and its response a line: sampling, scoring."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from tinker_local.batch.item import TEXTS, Item
from tinker_local.batch.lines import Line
from tinker_local.continued import Continued
from tinker_local.errors import BadRequestError
from tinker_local.futures import APIFuture
from tinker_local.sampling_client import SamplingClient
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import ModelInput, SampleResponse, SamplingParams

_SEED_BITS = 53  # as many as every reader of JSON keeps


class Task(Protocol):
    """What is done with each line."""

    @property
    def settings(self) -> dict[str, Any]:
        """What counts where a line does not say it."""

    def item(self, line: Line) -> Item:
        """Read a line."""

    def tokens(self, tokenizer: Tokenizer, item: Item) -> list[int]:
        """Return what is continued or scored.

        Raises:
            BadRequestError: it cannot be made tokens of.
        """

    def submit(self, client: SamplingClient, item: Item, tokens: list[int]) -> APIFuture[SampleResponse]:
        """Ask for a line.

        Raises:
            BadRequestError: the line asks for something that cannot be had.
        """

    def answer(
        self, tokenizer: Tokenizer, item: Item, tokens: list[int], response: SampleResponse
    ) -> dict[str, Any]:
        """Return what is written of a line's response."""

    def n_tokens(self, response: SampleResponse) -> int:
        """Return how many tokens were sampled or scored."""


@dataclass
class SampleTask:
    """Continue each line.

    Attributes:
        params: what counts where a line does not say it; without its seed.
        num_samples: likewise.
        chat: send prompts as messages.
        seed: what the seeds of lines without one are derived from.
    """

    params: SamplingParams
    num_samples: int = 1
    chat: bool = False
    seed: int = 0

    _PARAMS: ClassVar = ("max_tokens", "temperature", "top_p", "top_k", "stop")
    known: ClassVar = frozenset((*TEXTS, *_PARAMS, "seed", "num_samples", "id"))
    written: ClassVar = frozenset(("line", "error", "prompt_tokens", "sequences"))

    @property
    def settings(self) -> dict[str, Any]:
        """What counts where a line does not say it."""
        settings = {name: getattr(self.params, name) for name in self._PARAMS}
        return {"command": "sample", **settings, "num_samples": self.num_samples, "chat": self.chat}

    def item(self, line: Line) -> Item:
        """Read a line."""
        return Item.of(line, self.known, self.written)

    def tokens(self, tokenizer: Tokenizer, item: Item) -> list[int]:
        """Return what is continued."""
        return _tokens(tokenizer, item, chat=self.chat, generation=True)

    def submit(self, client: SamplingClient, item: Item, tokens: list[int]) -> APIFuture[SampleResponse]:
        """Ask for a line's continuations."""
        asked = {name: item.asked[name] for name in self._PARAMS if name in item.asked}
        params = self.params.model_copy(update={**asked, "seed": self.seed_of(item)})
        count = item.asked.get("num_samples", self.num_samples)
        return client.sample(ModelInput.from_ints(tokens), count, params)

    def seed_of(self, item: Item) -> int:
        """Return a line's seed: its own, or 53 bits of a hash (BLAKE2b) of ``seed`` and its number."""
        if "seed" not in item.asked:
            digest = hashlib.blake2b(f"{self.seed}:{item.number}".encode(), digest_size=8).digest()
            return int.from_bytes(digest) >> (64 - _SEED_BITS)
        seed = item.asked["seed"]
        if type(seed) is not int:
            raise BadRequestError(f"seed is {seed!r}; it must be an int, or left out")
        return seed

    def answer(
        self, tokenizer: Tokenizer, item: Item, tokens: list[int], response: SampleResponse
    ) -> dict[str, Any]:
        """Return what is written of a line's continuations."""
        continued = Continued(tokenizer, tokens)
        return {
            "prompt_tokens": tokens,
            "seed": self.seed_of(item),
            "sequences": [
                {
                    "text": continued.by(sequence.tokens),
                    "tokens": sequence.tokens,
                    "logprobs": sequence.logprobs,
                    "stop_reason": sequence.stop_reason,
                }
                for sequence in response.sequences
            ],
        }

    def n_tokens(self, response: SampleResponse) -> int:
        """Return how many tokens were sampled."""
        return sum(len(sequence.tokens) for sequence in response.sequences)


@dataclass
class ScoreTask:
    """Score each line.

    Attributes:
        top_k: alternatives at each position, where a line does not say how many.
    """

    top_k: int = 0
    _params: SamplingParams = field(default_factory=lambda: SamplingParams(max_tokens=0))

    known: ClassVar = frozenset((*TEXTS, "top_k", "id"))
    written: ClassVar = frozenset(
        ("line", "error", "texts", "logprobs", "sum", "perplexity", "topk_logprobs")
    )

    @property
    def settings(self) -> dict[str, Any]:
        """What counts where a line does not say it."""
        return {"command": "logprobs", "top_k": self.top_k}

    def item(self, line: Line) -> Item:
        """Read a line."""
        return Item.of(line, self.known, self.written)

    def tokens(self, tokenizer: Tokenizer, item: Item) -> list[int]:
        """Return what is scored."""
        return _tokens(tokenizer, item)

    def submit(self, client: SamplingClient, item: Item, tokens: list[int]) -> APIFuture[SampleResponse]:
        """Ask for a line's scores."""
        return client.sample(
            ModelInput.from_ints(tokens),
            1,
            self._params,
            include_prompt_logprobs=True,
            topk_prompt_logprobs=item.asked.get("top_k", self.top_k),
        )

    def answer(
        self, tokenizer: Tokenizer, item: Item, tokens: list[int], response: SampleResponse
    ) -> dict[str, Any]:
        """Return what is written of a line's scores."""
        scores = response.prompt_logprobs or []
        scored = [score for score in scores if score is not None]
        total = math.fsum(scored)
        answer: dict[str, Any] = {
            "tokens": tokens,
            "texts": [tokenizer.decode(token) for token in tokens],
            "logprobs": scores,
            "sum": total,
            "perplexity": math.exp(-total / len(scored)) if scored else 1.0,
        }
        if response.topk_prompt_logprobs is not None:
            answer["topk_logprobs"] = response.topk_prompt_logprobs
        return answer

    def n_tokens(self, response: SampleResponse) -> int:
        """Return how many tokens were scored, the first of a text included."""
        return 0 if response.prompt_logprobs_np is None else len(response.prompt_logprobs_np)


def _tokens(tokenizer: Tokenizer, item: Item, *, chat: bool = False, generation: bool = False) -> list[int]:
    """Return the tokens of a line's prompt, messages or tokens."""
    asked = item.asked
    if "tokens" in asked:
        return list(asked["tokens"])
    if "prompt" in asked and not chat:
        return tokenizer.encode(asked["prompt"])
    messages = asked.get("messages") or [{"role": "user", "content": asked["prompt"]}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=generation)
