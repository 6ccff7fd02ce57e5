"""Tinker's protocol under ``/api/v1``, as the SDK ``tinker`` (0.25 and newer) speaks it.

sessions.py   configuration, sessions, heartbeats, telemetry
sampling.py   ``asample``
futures.py    the table of requests: waiting, answers that are kept, cancellation
retrieval.py  ``retrieve_future``, ``retrieve_futures``, ``cancel_future``
records.py    models, samplers, checkpoints, training runs
replicas.py   several servers behind one address: who has a request's future
training.py   what belongs to Tinker's service
ids.py        ids that say what they stand for
bodies.py     JSON bodies
protobuf.py   the answer's form
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tinker_local.serve.image_directory import ImageDirectory
from tinker_local.serve.metrics import Metrics
from tinker_local.serve.served_models import ServedModels
from tinker_local.serve.tinker_api import retrieval, sampling, sessions, training
from tinker_local.serve.tinker_api.bodies import read_body, text
from tinker_local.serve.tinker_api.futures import Futures, Patience
from tinker_local.serve.tinker_api.records import Records
from tinker_local.serve.tinker_api.replicas import Replicas, shared

if TYPE_CHECKING:
    from starlette.requests import Request

    from tinker_local.rest_client import RestClient

PREFIX = "/api/v1"


class TinkerApi:
    """The routes, and the table of requests behind them while the server runs.

    Args:
        models: names -> clients.
        metrics: counts telemetry.
        rest: lists the store.
        images: those that clients may name.
        patience: how long requests and answers are kept.
        replicas: the servers behind this address; None if this is the only one.
        logs_prompts: whether the log may have prompts.
    """

    def __init__(
        self,
        models: ServedModels,
        metrics: Metrics,
        rest: RestClient,
        images: ImageDirectory,
        patience: Patience | None = None,
        *,
        replicas: Replicas | None = None,
        logs_prompts: bool = False,
    ) -> None:
        self._models, self._metrics, self._patience = models, metrics, patience or Patience()
        self._images = images
        self._replicas, self._logs_prompts = replicas, logs_prompts
        self._records = Records(models, rest)
        self._futures: Futures | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the table of requests; at the end cancel what is unfinished."""
        self._futures = Futures(self._patience)
        sweeping = asyncio.create_task(self._futures.sweep_forever())
        try:
            yield
        finally:
            sweeping.cancel()
            self._futures.close()

    @property
    def futures(self) -> Futures:
        """The table of requests."""
        assert self._futures is not None, "the application's lifespan has not begun"
        return self._futures

    def routes(self) -> list[BaseRoute]:
        """Return the routes; those of the service come last."""
        post: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "client/config": sessions.config,
            "client/dynamic_config": sessions.dynamic_config,
            "create_session": sessions.create_session,
            "create_sampling_session": lambda r: sessions.create_sampling_session(r, self._models),
            "join_sampling_session": sessions.join_sampling_session,
            "session_heartbeat": sessions.heartbeat,
            "sessions/{id}/finish": sessions.finish,
            "telemetry": lambda r: sessions.telemetry(r, self._metrics),
            "asample": lambda r: sampling.asample(
                r, self._models, self.futures, self._images, logs_prompts=self._logs_prompts
            ),
            "retrieve_future": lambda r: retrieval.retrieve_future(r, self._models, self.futures),
            "retrieve_futures": lambda r: retrieval.retrieve_futures(r, self.futures),
            "cancel_future": lambda r: retrieval.cancel_future(r, self.futures),
            "weights_info": self._weights_info,
        }
        if self._replicas is not None:
            post = shared(post, self._replicas, self._patience)
        records = self._records
        get: dict[str, Callable[[Request], dict[str, Any]]] = {
            "get_server_capabilities": lambda r: records.capabilities(),
            "samplers/{id}": lambda r: records.sampler(r.path_params["id"]),
            "checkpoints": lambda r: records.checkpoints(r.query_params),
            "training_runs": lambda r: records.training_runs(r.query_params),
            "training_runs/{id}": lambda r: records.training_run(r.path_params["id"]),
            "training_runs/{id}/checkpoints": lambda r: records.checkpoints_of(r.path_params["id"]),
        }
        return [
            *(Route(f"{PREFIX}/{path}", _async(answer), methods=["POST"]) for path, answer in post.items()),
            *(
                Route(f"{PREFIX}/{path}", _in_thread(answer), methods=["GET"])
                for path, answer in get.items()
            ),
            *training.routes(PREFIX),
        ]

    async def _weights_info(self, request: Request) -> Response:
        path = text(await read_body(request), "tinker_path")
        return JSONResponse(await asyncio.to_thread(self._records.weights_info, path))


def _async(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answer(request)

    return endpoint


def _in_thread(answer: Callable[[Request], dict[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(answer, request))

    return endpoint


__all__ = ["PREFIX", "TinkerApi"]
