"""The application: the routes of each part, the guard around them, errors as answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response

from tinker_local.errors import APIStatusError, TinkerError
from tinker_local.serve import metrics, page
from tinker_local.serve.guard import Access, Guard, Limits, error_body
from tinker_local.serve.image_directory import ImageDirectory
from tinker_local.serve.metrics import Metrics
from tinker_local.serve.openai_api import OpenAiApi
from tinker_local.serve.served_models import ServedModels
from tinker_local.serve.tinker_api import PREFIX, TinkerApi
from tinker_local.serve.tinker_api.replicas import Replicas, routes_left_out
from tinker_local.service_client import ServiceClient

if TYPE_CHECKING:
    from starlette.requests import Request

logger = logging.getLogger(__name__)


def app(
    service: ServiceClient,
    *,
    models: Iterable[str] = (),
    access: Access | None = None,
    limits: Limits | None = None,
    image_dir: Path | None = None,
    logs_prompts: bool = False,
    replicas: Replicas | None = None,
    stateless: bool = False,
) -> Starlette:
    """Return an ASGI application that serves the models of a ServiceClient; see ``tinker-local serve``.

    Args:
        service: opens the models; stays open.
        models: names, or paths of GGUF files, to open at once. A path is served under its file's name.
        access: who may ask. By default only this machine, without a key.
        limits: on bodies, requests at a time and slow clients.
        image_dir: directory whose images clients may name by their paths; None for none.
        logs_prompts: let the log ``tinker_local.serve`` have prompts.
        replicas: the servers behind one address, of which this is one; None if it is the only one.
        stateless: leave out Tinker's protocol: for one of several replicas that cannot ask each other.

    Raises:
        NotFoundError, BadRequestError: one of ``models`` is not here, or ``image_dir`` is no directory.
    """
    served, counters, images = ServedModels(service, models), Metrics(service), ImageDirectory(image_dir)
    rest = service.create_rest_client()
    tinker_api = TinkerApi(served, counters, rest, images, replicas=replicas, logs_prompts=logs_prompts)
    openai_api = OpenAiApi(served, images, logs_prompts=logs_prompts)
    guard = Middleware(Guard, access=access or Access(), limits=limits or Limits(), metrics=counters)
    return Starlette(
        routes=[
            *metrics.routes(counters),
            *page.routes(),
            *(routes_left_out(PREFIX) if stateless else tinker_api.routes()),
            *openai_api.routes(),
        ],
        middleware=[guard],
        exception_handlers={TinkerError: _refused, HTTPException: _no_route},
        lifespan=partial(_lifespan, served=served, tinker_api=tinker_api),
    )


@asynccontextmanager
async def _lifespan(
    application: Starlette, served: ServedModels, tinker_api: TinkerApi
) -> AsyncIterator[None]:
    async with tinker_api.running():
        served.open_first()
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


__all__ = ["app"]
