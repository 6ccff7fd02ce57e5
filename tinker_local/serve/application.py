"""The application: the routes of each part, the guard around them, errors as answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response

from tinker_local.errors import APIStatusError, TinkerError
from tinker_local.serve import metrics, page
from tinker_local.serve.guard import Access, Guard, Limits, error_body
from tinker_local.serve.metrics import Metrics
from tinker_local.serve.openai_api import OpenAiApi
from tinker_local.serve.served_models import ServedModels
from tinker_local.serve.tinker_api import TinkerApi
from tinker_local.service_client import ServiceClient

if TYPE_CHECKING:
    from starlette.requests import Request

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """What the parts share.

    Attributes:
        models: names -> clients.
        metrics: counters.
        access: who may ask.
        limits: how much.
        logs_prompts: whether the log may have prompts.
    """

    models: ServedModels
    metrics: Metrics
    access: Access
    limits: Limits
    logs_prompts: bool = False


def app(
    service: ServiceClient,
    *,
    models: Iterable[str] = (),
    access: Access | None = None,
    limits: Limits | None = None,
    logs_prompts: bool = False,
) -> Starlette:
    """Return an ASGI application that serves the models of a ServiceClient; see ``tinker-local serve``.

    Args:
        service: opens the models; stays open.
        models: names, or paths of GGUF files, to open at once. A path is served under its file's name.
        access: who may ask. By default only this machine, without a key.
        limits: on bodies, requests at a time and slow clients.
        logs_prompts: let the log ``tinker_local.serve`` have prompts.

    Raises:
        NotFoundError, BadRequestError: one of ``models`` is not here.
    """
    serving = Serving(
        ServedModels(service, models),
        Metrics(service),
        access or Access(),
        limits or Limits(),
        logs_prompts,
    )
    parts: list[TinkerApi | OpenAiApi] = [
        TinkerApi(serving.models, serving.metrics, service.create_rest_client(), logs_prompts=logs_prompts),
        OpenAiApi(serving.models, logs_prompts=serving.logs_prompts),
    ]
    guard = Middleware(Guard, access=serving.access, limits=serving.limits, metrics=serving.metrics)
    return Starlette(
        routes=[
            *metrics.routes(serving.metrics),
            *page.routes(),
            *(route for part in parts for route in part.routes()),
        ],
        middleware=[guard],
        exception_handlers={TinkerError: _refused, HTTPException: _no_route},
        lifespan=partial(_lifespan, serving=serving, parts=parts),
    )


@asynccontextmanager
async def _lifespan(
    application: Starlette, serving: Serving, parts: list[TinkerApi | OpenAiApi]
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for part in parts:
            await stack.enter_async_context(part.running())
        serving.models.open_first()
        yield


async def _refused(request: Request, error: Any) -> Response:
    """Answer with the status of one of our errors."""
    status = error.status_code if isinstance(error, APIStatusError) else 400
    return _answer(
        str(error), status, {"x-should-retry": "false"} if status != 429 else {"retry-after": "1"}
    )


async def _no_route(request: Request, error: Any) -> Response:
    return _answer(
        f"{request.method} {request.url.path}: {error.detail}", error.status_code, dict(error.headers or {})
    )


def _answer(message: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(error_body(message, status), status, headers, "application/json")


__all__ = ["Serving", "app"]
