"""``/v1/chat/completions``: conversations through the model's chat template."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tinker_local.sampling_client import SamplingClient
from tinker_local.serve.image_directory import ImageDirectory
from tinker_local.serve.openai_api.choices import Head, sample_scored, token_scored, usage
from tinker_local.serve.openai_api.fields import ChatFields, FieldError
from tinker_local.serve.openai_api.logprobs import of_chat, of_prompt
from tinker_local.serve.openai_api.pieces import GeneratedText, Pieces
from tinker_local.serve.openai_api.prompts import Prompt, rendered
from tinker_local.serve.openai_api.reasoning import Marks, ReasoningSplit
from tinker_local.serve.openai_api.work import Ask, Drawn, Finished
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import SampledSequence, SampleResponse


class Chat:
    """One request for a chat: what to ask of the model, and the answer's form.

    Args:
        fields: the request.
        client: its model.
        images: those that the client may name.

    Raises:
        FieldError: a field is wrong, or fields exclude each other.
        BadRequestError, NotFoundError: the template refuses the conversation, or an image cannot be read.
    """

    def __init__(self, fields: ChatFields, client: SamplingClient, images: ImageDirectory) -> None:
        fields.check_stream()
        if fields.top_logprobs and not fields.logprobs:
            raise FieldError("top_logprobs needs logprobs: true", "top_logprobs")
        self._fields, tokenizer = fields, client.get_tokenizer()
        tools = fields.tools if fields.tool_choice != "none" else []
        given = rendered(tokenizer, fields, tools, _variables(fields, tokenizer), images)
        self._prompt = Prompt.of(given, client)
        self.prompts = [self._prompt]
        self._marks = Marks.of(tokenizer.get_chat_template(tools=tools or None))
        self._pieces = Pieces(
            tokenizer,
            keeps_special=not fields.skip_special_tokens,
            kept=(self._marks.begin, self._marks.end) if self._marks else (),
            as_ids=fields.return_tokens_as_token_ids,
        )
        self._is_open = self._marks is not None and self._marks.is_open_after(
            tokenizer.decode(self._prompt.tokens[-16:]),
            fields.messages,
            continued=fields.continue_final_message,
        )
        self._model = fields.model or client.get_base_model()
        self._head = Head.new("chatcmpl", "chat.completion", self._model)
        self.ask = self._ask(client)
        self._texts = defaultdict[int, tuple[GeneratedText, ReasoningSplit]](self._new_text)

    def _ask(self, client: SamplingClient) -> Ask:
        fields, n_vocab = self._fields, len(client.get_tokenizer())
        if {"max_tokens", "max_completion_tokens"} <= fields.model_fields_set:
            raise FieldError("max_tokens and max_completion_tokens are one; give one", "max_tokens")
        limit = fields.max_tokens if fields.max_tokens is not None else fields.max_completion_tokens
        return Ask(
            fields.params(limit),
            fields.n,
            fields.prompt_logprobs is not None,
            min(fields.prompt_logprobs or 0, n_vocab),
            min(fields.top_logprobs, n_vocab),
        )

    # -- one answer -----------------------------------------------------------------------------

    def answer(self, responses: list[SampleResponse]) -> dict[str, Any]:
        """Return the whole answer."""
        (response,), fields = responses, self._fields
        choices = [self._choice(i, sequence) for i, sequence in enumerate(response.sequences)]
        more: dict[str, Any] = {"usage": usage(self.prompts, responses)}
        if fields.prompt_logprobs is not None:
            scored = self._prompt.scored(response)
            more["prompt_logprobs"] = of_prompt(self._pieces, scored, fields.prompt_logprobs)
        if fields.return_token_ids:
            more["prompt_token_ids"] = self._prompt.tokens
        return self._head.of(choices, **more)

    def _choice(self, index: int, sequence: SampledSequence) -> dict[str, Any]:
        text, split = self._new_text()
        stopped = sequence.stop_reason == "stop"
        reasoning, content = split.add(text.whole(sequence.tokens, stopped=stopped))
        last = split.end()
        message = self._said(reasoning + last[0], content + last[1])
        choice: dict[str, Any] = {
            "index": index,
            "message": {"role": "assistant", "content": None, **message},
            "logprobs": None,
            "finish_reason": sequence.stop_reason,
        }
        if not message:
            choice["message"]["content"] = ""
        if self._fields.logprobs:
            choice["logprobs"] = of_chat(self._pieces, sample_scored(sequence), self._fields.top_logprobs)
        if self._fields.return_token_ids:
            choice["token_ids"] = sequence.tokens
        return choice

    def _new_text(self) -> tuple[GeneratedText, ReasoningSplit]:
        texts, ids = self._fields.stops
        keeps = self._fields.include_stop_str_in_output
        text = GeneratedText(self._pieces, texts, ids, keeps_stop=keeps)
        return text, ReasoningSplit(self._marks, is_open=self._is_open)

    def _said(self, reasoning: str, content: str) -> dict[str, str]:
        said = {"content": content} if content else {}
        if reasoning and self._fields.include_reasoning:
            said["reasoning_content"] = reasoning
        return said

    # -- a stream -------------------------------------------------------------------------------

    def begin(self) -> Iterator[dict[str, Any]]:
        """Yield the chunk with the role, for each choice."""
        self._head = Head(self._head.id, "chat.completion.chunk", self._head.created, self._model)
        more: dict[str, Any] = (
            {"prompt_token_ids": self._prompt.tokens} if self._fields.return_token_ids else {}
        )
        for index in range(self._fields.n):
            yield self._chunk(index, {"role": "assistant", "content": ""}) | more

    def drawn(self, event: Drawn) -> Iterator[dict[str, Any]]:
        """Yield the chunk of a token, if it shows anything."""
        fields = self._fields
        text, split = self._texts[event.sample]
        delta = self._said(*split.add(text.add(event.token)))
        more: dict[str, Any] = {}
        if fields.logprobs:
            more["logprobs"] = of_chat(self._pieces, token_scored(event.token), fields.top_logprobs)
        if fields.return_token_ids:
            more["token_ids"] = [int(event.token)]
        if delta or more:
            yield self._chunk(event.sample, delta, **more)

    def finished(self, event: Finished) -> Iterator[dict[str, Any]]:
        """Yield the last chunk of each choice."""
        for index, sequence in enumerate(event.response.sequences):
            text, split = self._texts[index]
            reasoning, content = split.add(text.end(stopped=sequence.stop_reason == "stop"))
            last = split.end()
            if delta := self._said(reasoning + last[0], content + last[1]):
                yield self._chunk(index, delta)
            yield self._chunk(index, {}, finish_reason=sequence.stop_reason)

    def end(self, responses: list[SampleResponse]) -> Iterator[dict[str, Any]]:
        """Yield the chunk with the usage, if it is asked for."""
        if self._fields.stream_options.include_usage:
            yield self._head.of([], usage=usage(self.prompts, responses))

    def _chunk(self, index: int, delta: dict[str, str], **more: Any) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return self._head.of([choice], usage=None)


def _variables(fields: ChatFields, tokenizer: Tokenizer) -> dict[str, Any]:
    variables = dict(fields.chat_template_kwargs)
    if fields.reasoning_effort is None:
        return variables
    if "reasoning_effort" not in tokenizer.get_chat_template(tools=fields.tools or None):
        raise FieldError(
            "reasoning_effort is given, and the model's chat template has no such variable; leave it out",
            "reasoning_effort",
        )
    return {"reasoning_effort": fields.reasoning_effort} | variables


__all__ = ["Chat"]
