"""Tasks: how an item becomes a request, and the response an answer: sampling or scoring."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from tinker_local.batch.item import TEXTS, Item
from tinker_local.batch.lines import Line
from tinker_local.continued import Continued
from tinker_local.display.visible import escaped
from tinker_local.errors import BadRequestError
from tinker_local.futures import APIFuture
from tinker_local.image_prompts import chat_with_images, image_at, prompt_of, text_tokens
from tinker_local.sampling_client import SamplingClient
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import ImageChunk, ModelInput, SampleResponse, SamplingParams

_SEED_BITS = 53  # integers up to 2**53 survive readers of JSON that use doubles


class Task(Protocol):
    """The work done for each line. ``BatchRun`` calls the methods in this order."""

    @property
    def settings(self) -> dict[str, Any]:
        """Defaults for the keys that a line leaves out; noted beside the output."""

    def item(self, line: Line) -> Item:
        """Parse and check a line."""

    def prompt(self, tokenizer: Tokenizer, item: Item) -> ModelInput:
        """Return what is to be continued or scored.

        Raises:
            BadRequestError: the text cannot be tokenized, or the chat template refuses it.
        """

    def submit(self, client: SamplingClient, item: Item, prompt: ModelInput) -> APIFuture[SampleResponse]:
        """Send the item's request to the client.

        Raises:
            BadRequestError: a parameter is out of range, or the prompt does not fit.
        """

    def answer(
        self, tokenizer: Tokenizer, item: Item, prompt: ModelInput, response: SampleResponse
    ) -> dict[str, Any]:
        """Return the keys and values that the response adds to the item's line."""

    def n_tokens(self, response: SampleResponse) -> int:
        """Return the number of tokens that were sampled or scored."""


@dataclass
class SampleTask:
    """Continue the text of each line.

    Attributes:
        params: defaults for the keys that a line leaves out; ``params.seed`` is not used.
        num_samples: continuations of a line that does not say how many.
        chat: send each ``prompt`` as a chat message of the user.
        seed: seed of the run; lines without a seed derive theirs from it.
        image_at: reads an image that a line names; raises NotFoundError or BadRequestError.
    """

    params: SamplingParams
    num_samples: int = 1
    chat: bool = False
    seed: int = 0
    image_at: Callable[[str], ImageChunk] = image_at

    _PARAMS: ClassVar = (
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "logit_bias",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "stop",
    )
    known: ClassVar = frozenset((*TEXTS, *_PARAMS, "images", "seed", "num_samples", "id"))
    written: ClassVar = frozenset(("line", "error", "prompt_tokens", "sequences"))

    @property
    def settings(self) -> dict[str, Any]:
        """Defaults for the keys that a line leaves out, and the command."""
        settings = {name: getattr(self.params, name) for name in self._PARAMS}
        return {"command": "sample", **settings, "num_samples": self.num_samples, "chat": self.chat}

    def item(self, line: Line) -> Item:
        """Parse and check a line."""
        return Item.of(line, self.known, self.written)

    def prompt(self, tokenizer: Tokenizer, item: Item) -> ModelInput:
        """Return what is to be continued."""
        images = [self.image_at(location) for location in item.asked.get("images", ())]
        return _prompt(tokenizer, item, images, chat=self.chat, generation=True)

    def submit(self, client: SamplingClient, item: Item, prompt: ModelInput) -> APIFuture[SampleResponse]:
        """Request the item's continuations."""
        asked = {name: item.asked[name] for name in self._PARAMS if name in item.asked}
        params = self.params.model_copy(update={**asked, "seed": self.seed_of(item)})
        count = item.asked.get("num_samples", self.num_samples)
        return client.sample(prompt, count, params)

    def seed_of(self, item: Item) -> int:
        """Return the item's own seed, or 53 bits of BLAKE2b over ``"SEED:NUMBER"`` of run and line.

        A derived seed does not depend on other lines: a continued run draws the same tokens.

        Raises:
            BadRequestError: the item's seed is not an integer.
        """
        if "seed" not in item.asked:
            digest = hashlib.blake2b(f"{self.seed}:{item.number}".encode(), digest_size=8).digest()
            return int.from_bytes(digest) >> (64 - _SEED_BITS)
        seed = item.asked["seed"]
        if type(seed) is not int:
            raise BadRequestError(f"seed is {seed!r}; give an integer, or leave it out")
        return seed

    def answer(
        self, tokenizer: Tokenizer, item: Item, prompt: ModelInput, response: SampleResponse
    ) -> dict[str, Any]:
        """Return prompt tokens, seed and sampled sequences."""
        continued = Continued(tokenizer, text_tokens(prompt))
        return {
            "prompt_tokens": continued.tokens,
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
        """Return the number of sampled tokens."""
        return sum(len(sequence.tokens) for sequence in response.sequences)


@dataclass
class ScoreTask:
    """Compute the log-probabilities of each line's text.

    Attributes:
        top_k: alternatives at each position, for lines without ``top_k``, which the SDK calls
            ``topk_prompt_logprobs``; a line may have either.
    """

    top_k: int = 0
    _params: SamplingParams = field(default_factory=lambda: SamplingParams(max_tokens=0))

    known: ClassVar = frozenset((*TEXTS, "images", "top_k", "topk_prompt_logprobs", "id"))
    written: ClassVar = frozenset(
        ("line", "error", "texts", "logprobs", "sum", "perplexity", "topk_logprobs")
    )

    @property
    def settings(self) -> dict[str, Any]:
        """Defaults for the keys that a line leaves out, and the command."""
        return {"command": "logprobs", "top_k": self.top_k}

    def item(self, line: Line) -> Item:
        """Parse and check a line."""
        return Item.of(line, self.known, self.written)

    def prompt(self, tokenizer: Tokenizer, item: Item) -> ModelInput:
        """Return what is to be scored.

        Raises:
            BadRequestError: there are images, beside whose tokens nothing could be written.
        """
        if item.asked.get("images"):
            raise BadRequestError("images are for sample; score such a prompt from Python")
        return _prompt(tokenizer, item)

    def submit(self, client: SamplingClient, item: Item, prompt: ModelInput) -> APIFuture[SampleResponse]:
        """Request the log-probabilities of the item's tokens."""
        return client.sample(
            prompt,
            1,
            self._params,
            include_prompt_logprobs=True,
            topk_prompt_logprobs=item.asked.get(
                "top_k", item.asked.get("topk_prompt_logprobs", self.top_k)
            ),
        )

    def answer(
        self, tokenizer: Tokenizer, item: Item, prompt: ModelInput, response: SampleResponse
    ) -> dict[str, Any]:
        """Return tokens, their texts and log-probabilities, the sum and the perplexity."""
        tokens, scores = prompt.to_ints(), response.prompt_logprobs or []
        scored = [score for score in scores if score is not None]
        total = math.fsum(scored)
        answer: dict[str, Any] = {
            "tokens": tokens,
            "texts": [escaped(tokenizer.token_bytes(token)) for token in tokens],
            "logprobs": scores,
            "sum": total,
            "perplexity": math.exp(-total / len(scored)) if scored else 1.0,
        }
        if response.topk_prompt_logprobs is not None:
            answer["topk_logprobs"] = response.topk_prompt_logprobs
        return answer

    def n_tokens(self, response: SampleResponse) -> int:
        """Return the number of scored tokens; the first of a text counts, though it has no score."""
        return 0 if response.prompt_logprobs_np is None else len(response.prompt_logprobs_np)


def _prompt(
    tokenizer: Tokenizer,
    item: Item,
    images: Sequence[ImageChunk] = (),
    *,
    chat: bool = False,
    generation: bool = False,
) -> ModelInput:
    """Return an item's prompt, whichever of ``TEXTS`` it has; images stand before the last message's text.

    Args:
        tokenizer: the model's.
        item: the item.
        images: those that the item names.
        chat: turn ``prompt`` into a chat message.
        generation: end messages with the head of the assistant's turn.
    """
    asked = item.asked
    if "tokens" in asked:
        return ModelInput.from_ints(list(asked["tokens"]))
    if "prompt" in asked:
        return prompt_of(tokenizer, asked["prompt"], images, chat=chat)
    messages = [dict(message) for message in asked["messages"]]
    if images:
        messages[-1]["content"] = [
            *({"type": "image"} for _ in images),
            {"type": "text", "text": messages[-1].get("content")},
        ]
    return chat_with_images(tokenizer, messages, images, add_generation_prompt=generation)
