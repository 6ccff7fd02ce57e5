"""Metrics: what the server counts, as Prometheus reads it, and as the page shows it.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from tinker_local.service_client import ServiceClient

if TYPE_CHECKING:
    from starlette.requests import Request

_TEXT = "text/plain; version=0.0.4"


class Metrics:
    """Counters of one server; used on its event loop only.

    Args:
        service: whose requests to models are counted, too.
    """

    def __init__(self, service: ServiceClient) -> None:
        self._telemetry = service.get_telemetry()
        self._began = time.time()
        self._n_running = 0
        self._answers: Counter[tuple[str, int]] = Counter()
        self._events: Counter[str] = Counter()

    @contextmanager
    def request(self) -> Iterator[int]:
        """Count a request as running; gives how many are, this one included."""
        self._n_running += 1
        try:
            yield self._n_running
        finally:
            self._n_running -= 1

    def notice_answer(self, route: str, status: int) -> None:
        """Count an answer; a status of 0 means that the client left before."""
        self._answers[route, status] += 1

    def notice_event(self, kind: str) -> None:
        """Count an event of a client's telemetry, which goes nowhere else."""
        self._events[kind] += 1

    def values(self) -> dict[str, float]:
        """Return what is neither by route nor by kind: name -> value."""
        counted = self._telemetry.counters
        unfinished = counted.requests - counted.finished - counted.failed - counted.cancelled
        return {
            "http_requests_running": self._n_running,
            "requests_total": counted.requests,
            "requests_unfinished": unfinished,
            "requests_failed_total": counted.failed,
            "requests_cancelled_total": counted.cancelled,
            "prompt_tokens_total": counted.tokens_in,
            "cached_prompt_tokens_total": counted.cache_hit_tokens,
            "prefilled_tokens_total": counted.prefilled,
            "sampled_tokens_total": counted.sampled,
            "busy_seconds_total": counted.busy_seconds,
            "queue_wait_seconds_mean": counted.queue_wait_seconds,
            "time_to_first_token_seconds_mean": counted.time_to_first_token_seconds,
            "start_time_seconds": self._began,
        }

    def text(self) -> str:
        """Return everything in Prometheus' text form."""
        lines = list[str]()
        for name, value in self.values().items():
            lines += [_type_of(name), f"tinker_local_{name} {value}"]
        lines.append(_type_of("http_answers_total"))
        for (route, status), n in sorted(self._answers.items()):
            lines.append(f'tinker_local_http_answers_total{{route="{route}",status="{status}"}} {n}')
        lines.append(_type_of("client_events_total"))
        for kind, n in sorted(self._events.items()):
            lines.append(f'tinker_local_client_events_total{{kind="{kind}"}} {n}')
        return "\n".join(lines) + "\n"


def routes(metrics: Metrics) -> list[BaseRoute]:
    """Return ``/metrics`` and ``/healthz``."""

    async def show(request: Request) -> Response:
        return PlainTextResponse(metrics.text(), media_type=_TEXT)

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return [Route("/metrics", show), Route("/healthz", healthz), Route("/api/v1/healthz", healthz)]


def _type_of(name: str) -> str:
    return f"# TYPE tinker_local_{name} {'counter' if name.endswith('_total') else 'gauge'}"


__all__ = ["Metrics", "routes"]
