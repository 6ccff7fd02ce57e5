"""``/v1/completions``: prompts as texts or token ids, continued and scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, TypeGuard

from tinker_local.sampling_client import SamplingClient
from tinker_local.serve.chunks import read_chunks
from tinker_local.serve.image_directory import ImageDirectory
from tinker_local.serve.openai_api.choices import (
    Head,
    best,
    sample_scored,
    token_scored,
    usage,
)
from tinker_local.serve.openai_api.fields import MOST_PROMPTS, CompletionFields, FieldError
from tinker_local.serve.openai_api.logprobs import of_completion, of_prompt
from tinker_local.serve.openai_api.pieces import GeneratedText, Offsets, Pieces
from tinker_local.serve.openai_api.prompts import Prompt
from tinker_local.serve.openai_api.work import Ask, Drawn, Finished
from tinker_local.types import SampledSequence, SampleResponse


class Completion:
    """One request for completions: what to ask of the model, and the answer's form.

    Args:
        fields: the request.
        client: its model.
        images: those that the client may name.

    Raises:
        FieldError: a field is wrong, or fields exclude each other.
        BadRequestError, NotFoundError: a prompt cannot be read.
    """

    def __init__(self, fields: CompletionFields, client: SamplingClient, images: ImageDirectory) -> None:
        fields.check_stream(*(["logprobs"] if fields.echo else []), "best_of")
        self._fields, self._tokenizer = fields, client.get_tokenizer()
        self._pieces = Pieces(
            self._tokenizer,
            keeps_special=not fields.skip_special_tokens,
            as_ids=fields.return_tokens_as_token_ids,
        )
        if (fields.best_of or fields.n) < fields.n:
            raise FieldError(f"best_of is {fields.best_of}, and n is {fields.n}, which is more", "best_of")
        self._head = Head.new("cmpl", "text_completion", fields.model or client.get_base_model())
        self.prompts = self._prompts(client, images)
        self.ask = self._ask(client)
        self._texts = defaultdict[int, GeneratedText](self._text)
        self._offsets = defaultdict[int, Offsets](Offsets)

    def _prompts(self, client: SamplingClient, images: ImageDirectory) -> list[Prompt]:
        given = self._fields.prompt
        if _is_chunks(given):
            return [Prompt.of(images.fill(read_chunks(given)), client)]
        prompts: list[Any] = [given] if isinstance(given, str) or _is_tokens(given) else list(given)
        if not 0 < len(prompts) <= MOST_PROMPTS:
            raise FieldError(f"prompt has {len(prompts)} prompts; give 1 to {MOST_PROMPTS:,}", "prompt")
        return [Prompt.of_tokens(self._tokens(prompt)) for prompt in prompts]

    def _tokens(self, prompt: str | list[int]) -> list[int]:
        if not isinstance(prompt, str):
            return prompt
        return self._tokenizer.encode(prompt, add_special_tokens=self._fields.add_special_tokens)

    def _ask(self, client: SamplingClient) -> Ask:
        fields, n_vocab = self._fields, len(client.get_tokenizer())
        k = min(fields.logprobs or 0, n_vocab)
        scores_echo = fields.echo and fields.logprobs is not None
        return Ask(
            fields.params(fields.max_tokens),
            fields.best_of or fields.n,
            scores_echo or fields.prompt_logprobs is not None,
            max(k if scores_echo else 0, min(fields.prompt_logprobs or 0, n_vocab)),
            k,
        )

    # -- one answer -----------------------------------------------------------------------------

    def answer(self, responses: list[SampleResponse]) -> dict[str, Any]:
        """Return the whole answer."""
        choices = [
            self._choice(number * self._fields.n + index, prompt, response, sequence)
            for number, (prompt, response) in enumerate(zip(self.prompts, responses, strict=True))
            for index, sequence in enumerate(best(response.sequences, self._fields.n))
        ]
        return self._head.of(choices, usage=usage(self.prompts, responses))

    def _choice(
        self, index: int, prompt: Prompt, response: SampleResponse, sequence: SampledSequence
    ) -> dict[str, Any]:
        fields, pieces = self._fields, self._pieces
        echoed = pieces.prompt(prompt.tokens) if fields.echo else []
        text = b"".join(echoed).decode("utf-8", "replace")
        text += self._text().whole(sequence.tokens, stopped=sequence.stop_reason == "stop")
        choice: dict[str, Any] = {"index": index, "text": text, "logprobs": None}
        choice["finish_reason"] = sequence.stop_reason
        if fields.logprobs is not None:
            scored = sample_scored(sequence)
            if fields.echo:
                scored = prompt.scored(response) + scored
            places = list(map(Offsets().next, [*echoed, *pieces.shown(sequence.tokens)]))
            choice["logprobs"] = of_completion(pieces, scored, fields.logprobs, places)
        if fields.prompt_logprobs is not None:
            scored = prompt.scored(response)
            choice["prompt_logprobs"] = of_prompt(pieces, scored, fields.prompt_logprobs)
        if fields.return_token_ids:
            choice |= {"token_ids": sequence.tokens, "prompt_token_ids": prompt.tokens}
        return choice

    def _text(self) -> GeneratedText:
        texts, ids = self._fields.stops
        keeps = self._fields.include_stop_str_in_output
        return GeneratedText(self._pieces, texts, ids, keeps_stop=keeps)

    # -- a stream -------------------------------------------------------------------------------

    def begin(self) -> Iterator[dict[str, Any]]:
        """Yield the chunks that come before any token: the echoed prompts."""
        fields = self._fields
        if not (fields.echo or fields.return_token_ids):
            return
        for number, prompt in enumerate(self.prompts):
            text = b"".join(self._pieces.prompt(prompt.tokens)) if fields.echo else b""
            more: dict[str, Any] = {"prompt_token_ids": prompt.tokens} if fields.return_token_ids else {}
            for index in range(number * fields.n, (number + 1) * fields.n):
                yield self._chunk(index, text.decode("utf-8", "replace"), **more)

    def drawn(self, event: Drawn) -> Iterator[dict[str, Any]]:
        """Yield the chunk of a token, if it shows anything."""
        fields, index = self._fields, event.prompt * self._fields.n + event.sample
        text = self._texts[index].add(event.token)
        more: dict[str, Any] = {"token_ids": [int(event.token)]} if fields.return_token_ids else {}
        if fields.logprobs is not None:
            (shown,) = self._pieces.shown([event.token])
            place = self._offsets[index].next(shown)
            scored = token_scored(event.token)
            more["logprobs"] = of_completion(self._pieces, scored, fields.logprobs, [place])
        if text or more:
            yield self._chunk(index, text, **more)

    def finished(self, event: Finished) -> Iterator[dict[str, Any]]:
        """Yield the last chunks of a prompt's samples."""
        for sample, sequence in enumerate(event.response.sequences):
            index = event.prompt * self._fields.n + sample
            text = self._texts[index].end(stopped=sequence.stop_reason == "stop")
            yield self._chunk(index, text, finish_reason=sequence.stop_reason)

    def end(self, responses: list[SampleResponse]) -> Iterator[dict[str, Any]]:
        """Yield the chunk with the usage, if it is asked for."""
        if self._fields.stream_options.include_usage:
            yield self._head.of([], usage=usage(self.prompts, responses))

    def _chunk(self, index: int, text: str, **more: Any) -> dict[str, Any]:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None, **more}
        return self._head.of([choice], usage=None)


def _is_tokens(prompt: list[Any]) -> bool:
    return bool(prompt) and all(isinstance(item, int) for item in prompt)


def _is_chunks(prompt: Any) -> TypeGuard[list[Any]]:
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], dict)


__all__ = ["Completion"]
