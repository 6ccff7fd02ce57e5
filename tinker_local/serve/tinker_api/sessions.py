"""Configuration and sessions: what Tinker's SDK asks before it samples, and while it lives."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from tinker_local.errors import BadRequestError
from tinker_local.serve.metrics import Metrics
from tinker_local.serve.served_models import ModelName, ServedModels
from tinker_local.serve.tinker_api.bodies import read_body, text, text_or_none, whole_number
from tinker_local.serve.tinker_api.ids import CLONE, SamplingSession

if TYPE_CHECKING:
    from starlette.requests import Request

_CONFIG = {"sample_max_concurrent_requests": 2000}
"""Flags of ``tinker.types.ClientConfigResponse``.

``sample_use_retrieve_futures`` stays off. With it the SDK hears nothing of the queue. It also waits for
ever for requests that it had sent before the server was started again.
"""
_DYNAMIC_CONFIG = {"sample_cancel_enabled": True}
_EVENTS = frozenset(("SESSION_START", "SESSION_END", "UNHANDLED_EXCEPTION", "GENERIC_EVENT"))


async def config(request: Request) -> Response:
    """Answer which of the SDK's features are on."""
    return JSONResponse(_CONFIG)


async def dynamic_config(request: Request) -> Response:
    """Answer the same for what the SDK asks again from time to time."""
    return JSONResponse(_DYNAMIC_CONFIG)


async def create_session(request: Request) -> Response:
    """Give a new session's id; nothing is kept of it."""
    await read_body(request)
    return JSONResponse({"type": "create_session", "session_id": f"local-{secrets.token_hex(8)}"})


async def create_sampling_session(request: Request, models: ServedModels) -> Response:
    """Give the id of a sampling session, and begin to open its model."""
    body = await read_body(request)
    name = ModelName(text_or_none(body, "base_model"), text_or_none(body, "model_path"))
    if not (name.base or name.checkpoint):
        raise BadRequestError("a sampling session needs base_model or model_path")
    await asyncio.to_thread(models.check, name)
    models.begin_opening(name)
    number = whole_number(body, "sampling_session_seq_id", 0)
    session = SamplingSession(text(body, "session_id", ""), number, name)
    return JSONResponse({"type": "create_sampling_session", "sampling_session_id": session.id})


async def join_sampling_session(request: Request) -> Response:
    """Give a clone of a client its number."""
    SamplingSession.read(text(await read_body(request), "sampling_session_id"))
    return JSONResponse(
        {"type": "join_sampling_session", "client_counter": secrets.randbelow(CLONE - 1) + 1}
    )


async def heartbeat(request: Request) -> Response:
    """Answer that the session lives: it always does."""
    await read_body(request)
    return JSONResponse({"type": "session_heartbeat"})


async def finish(request: Request) -> Response:
    """Answer a client that says goodbye."""
    return JSONResponse({})


async def telemetry(request: Request, metrics: Metrics) -> Response:
    """Count events, and forget them: nothing goes anywhere."""
    events = (await read_body(request)).get("events")
    for event in events if isinstance(events, list) else ():
        kind = event.get("event") if isinstance(event, dict) else None
        metrics.notice_event(kind if isinstance(kind, str) and kind in _EVENTS else "other")
    return JSONResponse({"status": "accepted"})


__all__ = [
    "config",
    "create_sampling_session",
    "create_session",
    "dynamic_config",
    "finish",
    "heartbeat",
    "join_sampling_session",
    "telemetry",
]
