"""The routes: bodies in; answers, streams, and errors that name the field out."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from tinker_local.errors import APIStatusError, BadRequestError, NotFoundError, TinkerError
from tinker_local.sampling_client import SamplingClient
from tinker_local.serve.guard import error_body
from tinker_local.serve.image_directory import ImageDirectory
from tinker_local.serve.mailbox import Mailbox
from tinker_local.serve.openai_api.chat import Chat
from tinker_local.serve.openai_api.completions import Completion
from tinker_local.serve.openai_api.fields import (
    ChatFields,
    CompletionFields,
    DetokenizeFields,
    FieldError,
    Fields,
    TokenizeFields,
)
from tinker_local.serve.openai_api.tokens import detokenize, token_pieces, tokenize, tokenizer_info
from tinker_local.serve.openai_api.work import ClientLeftError, Drawn, Event, Work, unless_left
from tinker_local.serve.served_models import ListedModel, ModelName, ServedModels
from tinker_local.serve.tinker_api.bodies import read_body
from tinker_local.types import SampleResponse

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

PREFIXES = ("/v1", "/oai/api/v1")
_MODALITIES = {"text": "text", "images": "image", "audio": "audio"}  # ours to llama-server's
_JSON = "application/json"
_DONE = b"data: [DONE]\n\n"
_SYNONYMS = {
    "num_samples": "n",
    "topk_prompt_logprobs": "prompt_logprobs",
    "topk_sample_logprobs": "logprobs",
}
F = TypeVar("F", bound=Fields)
Make = Callable[[F, SamplingClient, ImageDirectory], Completion | Chat]
Endpoint = Callable[["Request"], Awaitable[Response]]

logger = logging.getLogger(__name__)


class OpenAiApi:
    """The routes under ``/v1`` and ``/oai/api/v1``, and vLLM's three at the root.

    Args:
        models: names -> clients.
        images: those that clients may name.
        logs_prompts: whether the log may have prompts.
    """

    def __init__(self, models: ServedModels, images: ImageDirectory, *, logs_prompts: bool = False) -> None:
        self._models, self._images = models, images
        self._logs_prompts, self._began = logs_prompts, int(time.time())

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        found = list[BaseRoute]()
        for prefix in PREFIXES:
            found += [
                Route(f"{prefix}/completions", _answered(self._completions), methods=["POST"]),
                Route(f"{prefix}/chat/completions", _answered(self._chat), methods=["POST"]),
                Route(f"{prefix}/models", _answered(self._list_models), methods=["GET"]),
                Route(f"{prefix}/models/{{name:path}}", _answered(self._model), methods=["GET"]),
            ]
        return [
            *found,
            Route("/tokenize", _answered(self._tokenize), methods=["POST"]),
            Route("/detokenize", _answered(self._detokenize), methods=["POST"]),
            Route("/token_pieces", _answered(self._token_pieces), methods=["POST"]),
            Route("/tokenizer_info", _answered(self._tokenizer_info), methods=["GET"]),
        ]

    async def _completions(self, request: Request) -> Response:
        return await self._generated(request, CompletionFields, Completion)

    async def _chat(self, request: Request) -> Response:
        return await self._generated(request, ChatFields, Chat)

    async def _generated(self, request: Request, kind: type[F], make: Make[F]) -> Response:
        fields = await _fields(request, kind)
        with _naming(fields):
            if self._logs_prompts:
                said = getattr(fields, "prompt", None) or getattr(fields, "messages", None)
                logger.info("%s asks %r for %r", request.state.request_id, fields.model, said)
            client = await self._open(fields.model)
            is_stream = bool(getattr(fields, "stream", False))
            mailbox = self._mailbox if is_stream else None
            asked, work = await asyncio.to_thread(self._begun, make, fields, client, mailbox)
            if is_stream:
                return EventStream(asked, work)
            responses = await unless_left(request, work.responses())
            return _json(await asyncio.to_thread(_dumped, asked, responses))

    def _begun(
        self, make: Make[F], fields: F, client: SamplingClient, mailbox: Mailbox | None
    ) -> tuple[Completion | Chat, Work]:
        """Submit the requests; not on the event loop: tokenizers, templates and images take their time."""
        asked = make(fields, client, self._images)
        work = Work(client, asked.prompts, asked.ask)
        work.submit(mailbox)
        return asked, work

    async def _list_models(self, request: Request) -> Response:
        listed = await asyncio.to_thread(self._models.listed)
        described = [self._described(name, model) for name, model in listed.items()]
        return _json({"object": "list", "data": described})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        listed = await asyncio.to_thread(self._models.listed)
        if name not in listed:
            raise NotFoundError(f"no model is called {name!r} here; GET /v1/models lists those that are")
        return _json(self._described(name, listed[name]))

    def _described(self, name: str, model: ListedModel) -> dict[str, Any]:
        client = self._models.ready(ModelName.parse(name))
        said: dict[str, Any] = {
            "id": name,
            "object": "model",
            "created": self._began,
            "owned_by": "tinker-local",
        }
        said["parent"] = model.parent
        said["architecture"] = {"input_modalities": [_MODALITIES[each] for each in model.reads]}
        return said if client is None else {**said, "max_model_len": client.n_ctx}

    async def _tokenize(self, request: Request) -> Response:
        return await self._of_vocabulary(request, TokenizeFields, partial(tokenize, images=self._images))

    async def _detokenize(self, request: Request) -> Response:
        return await self._of_vocabulary(request, DetokenizeFields, detokenize)

    async def _token_pieces(self, request: Request) -> Response:
        return await self._of_vocabulary(request, DetokenizeFields, token_pieces)

    async def _of_vocabulary(
        self, request: Request, kind: type[F], work: Callable[[F, SamplingClient], dict[str, Any]]
    ) -> Response:
        fields = await _fields(request, kind)
        with _naming(fields):
            client = await self._open(fields.model)
            return _json(await asyncio.to_thread(work, fields, client))

    async def _tokenizer_info(self, request: Request) -> Response:
        client = await self._open(request.query_params.get("model"))
        return _json(await asyncio.to_thread(tokenizer_info, client))

    @cached_property
    def _mailbox(self) -> Mailbox:
        """For the tokens of all streams."""
        return Mailbox(asyncio.get_running_loop())

    async def _open(self, name: str | None) -> SamplingClient:
        """Open a model; without a name, the one that there can be no doubt about."""
        return await self._models.open(
            await self._models.default() if name is None else ModelName.parse(name)
        )


class EventStream(StreamingResponse):
    """Server-sent events: all that have come go out in one write. If the client leaves, its requests end.

    Args:
        asked: makes the chunks.
        work: the requests, followed.
    """

    def __init__(self, asked: Completion | Chat, work: Work) -> None:
        super().__init__(_writes(asked, work), media_type="text/event-stream")
        self.headers["cache-control"] = "no-cache"
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the chunks."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._work.cancel()


async def _writes(asked: Completion | Chat, work: Work) -> AsyncIterator[bytes]:
    """Yield the bytes of each write: all chunks that are there, and then the end, or an error."""
    responses: dict[int, SampleResponse] = {}
    try:
        if first := _sent(asked.begin()):
            yield first
        async for events in work.events():
            if written := _sent(_chunks(asked, events, responses)):
                yield written
        yield _sent(asked.end([responses[number] for number in sorted(responses)])) + _DONE
    except TinkerError as error:
        yield _event(error_body(str(error), _status(error))) + _DONE


def _chunks(
    asked: Completion | Chat, events: Iterable[Event], responses: dict[int, SampleResponse]
) -> Iterator[dict[str, Any]]:
    for event in events:
        if isinstance(event, Drawn):
            yield from asked.drawn(event)
        else:
            responses[event.prompt] = event.response
            yield from asked.finished(event)


def _sent(chunks: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(_event(json.dumps(chunk).encode()) for chunk in chunks)


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _dumped(asked: Completion | Chat, responses: list[SampleResponse]) -> bytes:
    return json.dumps(asked.answer(responses)).encode()


def _json(body: Any) -> Response:
    return Response(body if isinstance(body, bytes) else json.dumps(body), media_type=_JSON)


async def _fields(request: Request, kind: type[F]) -> F:
    return kind.read(await read_body(request))


@contextmanager
def _naming(fields: Fields) -> Iterator[None]:
    """Have errors of ours within the block name the field that they are about, if they do at all."""
    try:
        yield
    except BadRequestError as error:
        said = str(error).removeprefix("prompt of")  # so many tokens, and max_tokens are too many
        words = [_SYNONYMS.get(word, word) for word in re.findall(r"\w+", said)[:6]]
        param = next((word for word in words if word in fields.names), None)
        if param is None and words[:1] == ["prompt"]:
            param = "messages"
        raise FieldError(str(error), param) from None


def _answered(answer: Endpoint) -> Endpoint:
    """Return an endpoint that answers errors in OpenAI's form."""

    async def endpoint(request: Request) -> Response:
        try:
            return await answer(request)
        except FieldError as error:
            return _refusal(str(error), 400, error.param)
        except TinkerError as error:
            return _refusal(
                str(error), _status(error), "model" if isinstance(error, NotFoundError) else None
            )
        except ClientLeftError:
            return Response(status_code=499)

    return endpoint


def _refusal(message: str, status: int, param: str | None) -> Response:
    headers = {"retry-after": "1"} if status == 429 else None
    return Response(error_body(message, status, param), status, headers, _JSON)


def _status(error: TinkerError) -> int:
    return error.status_code if isinstance(error, APIStatusError) else 500


__all__ = ["PREFIXES", "EventStream", "OpenAiApi"]
