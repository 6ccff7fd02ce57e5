"""``/v1/chat/completions``: conversations through the model's chat template."""

from __future__ import annotations

import base64
import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from tinker_local.errors import shown
from tinker_local.image_prompts import chat_with_images, text_tokens
from tinker_local.pixels import format_of
from tinker_local.sampling_client import SamplingClient
from tinker_local.serve.openai_api.choices import Head, prompt_scored, sample_scored, token_scored, usage
from tinker_local.serve.openai_api.fields import ChatFields, FieldError, TokenizeFields
from tinker_local.serve.openai_api.logprobs import of_chat, of_prompt
from tinker_local.serve.openai_api.pieces import GeneratedText, Pieces
from tinker_local.serve.openai_api.reasoning import Marks, ReasoningSplit
from tinker_local.serve.openai_api.work import Ask, Drawn, Finished
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import ImageChunk, ModelInput, SampledSequence, SampleResponse

_TAKEN = frozenset(inspect.signature(Tokenizer.apply_chat_template).parameters)
"""Arguments that are no variables of a template."""


class Chat:
    """One request for a chat: what to ask of the model, and the answer's form.

    Args:
        fields: the request.
        client: its model.

    Raises:
        FieldError: a field is wrong, or fields exclude each other.
        BadRequestError: the template refuses the conversation.
    """

    def __init__(self, fields: ChatFields, client: SamplingClient) -> None:
        fields.check_stream()
        if fields.top_logprobs and not fields.logprobs:
            raise FieldError("top_logprobs needs logprobs: true", "top_logprobs")
        self._fields, tokenizer = fields, client.get_tokenizer()
        tools = fields.tools if fields.tool_choice != "none" else []
        self.inputs = [rendered(tokenizer, fields, tools, _variables(fields, tokenizer))]
        self.prompts = [text_tokens(prompt) for prompt in self.inputs]
        self._n_prompt = self._counted(client)
        self._marks = Marks.of(tokenizer.get_chat_template(tools=tools or None))
        self._pieces = Pieces(
            tokenizer,
            keeps_special=not fields.skip_special_tokens,
            kept=(self._marks.begin, self._marks.end) if self._marks else (),
            as_ids=fields.return_tokens_as_token_ids,
        )
        self._is_open = self._marks is not None and self._marks.is_open_after(
            tokenizer.decode(self.prompts[0][-16:]),
            fields.messages,
            continued=fields.continue_final_message,
        )
        self._model = fields.model or client.get_base_model()
        self._head = Head.new("chatcmpl", "chat.completion", self._model)
        self.ask = self._ask(client)
        self._texts = defaultdict[int, tuple[GeneratedText, ReasoningSplit]](self._new_text)

    def _counted(self, client: SamplingClient) -> int:
        """Return the number of the prompt's tokens; what is asked of each of them is for text alone."""
        fields, (prompt,), n_text = self._fields, self.inputs, len(self.prompts[0])
        n = client.count_tokens(prompt) if len(prompt.chunks) > 1 else n_text
        if n > n_text and (fields.prompt_logprobs is not None or fields.return_token_ids):
            raise FieldError(
                "prompt_logprobs and return_token_ids are for messages without images", "messages"
            )
        return n

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
        more: dict[str, Any] = {"usage": usage(self._n_prompt, responses)}
        if fields.prompt_logprobs is not None:
            scored = prompt_scored(self.prompts[0], response)
            more["prompt_logprobs"] = of_prompt(self._pieces, scored, fields.prompt_logprobs)
        if fields.return_token_ids:
            more["prompt_token_ids"] = self.prompts[0]
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
            {"prompt_token_ids": self.prompts[0]} if self._fields.return_token_ids else {}
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
            yield self._head.of([], usage=usage(self._n_prompt, responses))

    def _chunk(self, index: int, delta: dict[str, str], **more: Any) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return self._head.of([choice], usage=None)


def rendered(
    tokenizer: Tokenizer,
    fields: ChatFields | TokenizeFields,
    tools: Sequence[dict[str, Any]],
    variables: dict[str, Any],
) -> ModelInput:
    """Return the prompt that a conversation becomes: token ids, and images in their places.

    Raises:
        FieldError: a message has what is neither text nor image, or fields exclude each other.
        BadRequestError: the template refuses the conversation.
    """
    messages = fields.messages or []
    _check_messages(messages)
    images = [_image_of(part) for message in messages for part in _image_parts(message)]
    if wrong := _TAKEN.intersection(variables):
        raise FieldError(
            f"chat_template_kwargs has {', '.join(sorted(wrong))}, which is no variable of a template",
            "chat_template_kwargs",
        )
    continued = fields.continue_final_message
    prompted = fields.add_generation_prompt and not (
        continued and "add_generation_prompt" not in fields.model_fields_set
    )
    if continued and prompted:
        raise FieldError(
            "continue_final_message and add_generation_prompt exclude each other; give one of them",
            "continue_final_message",
        )
    return chat_with_images(
        tokenizer,
        [_with_places(message) for message in messages] if images else messages,
        images,
        tools=list(tools) or None,
        documents=getattr(fields, "documents", None) or None,
        add_generation_prompt=prompted,
        continue_final_message=continued,
        **variables,
    )


def _image_parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [part for part in parts if part["type"] == "image_url"]


def _with_places(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose images are written as chat templates know them."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [p if p["type"] == "text" else {"type": "image"} for p in content]}


def _image_of(part: dict[str, Any]) -> ImageChunk:
    """Return the image of a part ``image_url``: a data URL, since nothing is fetched.

    Raises:
        FieldError: it is another URL, or no base64.
        BadRequestError: it is neither PNG nor JPEG.
    """
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    head, _, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise FieldError(
            f"image_url is {shown(url)}; it must be data:image/png;base64,... or the same with jpeg, since "
            "nothing is fetched",
            "messages",
        )
    try:
        decoded = base64.b64decode(data, validate=True)
    except ValueError as error:
        raise FieldError(f"image_url has no base64: {error}", "messages") from None
    return ImageChunk(data=decoded, format=format_of(decoded))


def _check_messages(messages: Sequence[dict[str, Any]]) -> None:
    for number, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(message.get("role"), str):
            raise FieldError(
                f"messages[{number}].role is {shown(message.get('role'))}; it must be a string", "messages"
            )
        if not isinstance(content, str | list | None):
            raise FieldError(
                f"messages[{number}].content is {shown(content)}; it must be a string or a list of parts",
                "messages",
            )
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind != "image_url" and (kind != "text" or not isinstance(part.get("text"), str)):
                raise FieldError(
                    f"messages[{number}] has a part of the type {shown(kind)}, not text or image_url",
                    "messages",
                )


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


__all__ = ["Chat", "rendered"]
