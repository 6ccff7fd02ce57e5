"""``retrieve_future`` and its like: fetch answers, wait for them, cancel requests.

The SDK takes these answers well:

- 200 with the protobuf message, or with ``{"error", "category"}`` for a request that failed;
- 408 with the state of the queue: the SDK asks again;
- 410: the SDK sends the whole request again.

A 5xx would be asked for ever, and a 402 would be taken for an unpaid bill.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from tinker_local.errors import BadRequestError, shown
from tinker_local.queue_state import QueueState
from tinker_local.serve.served_models import ServedModels
from tinker_local.serve.tinker_api.bodies import flag, read_body, text, whole_number
from tinker_local.serve.tinker_api.futures import LOADING, Entry, Futures
from tinker_local.serve.tinker_api.ids import SamplingSession, client_of
from tinker_local.serve.tinker_api.protobuf import MEDIA_TYPE

if TYPE_CHECKING:
    from starlette.requests import Request

_LARGE = 8 * 2**20
"""Bytes of an answer of which the SDK is told the size first, if it asks for that."""


async def retrieve_future(request: Request, models: ServedModels, futures: Futures) -> Response:
    """Answer a request's response, once it is there."""
    body = await read_body(request)
    id, metadata_only = text(body, "request_id"), flag(body, "allow_metadata_only")
    session, _ = client_of(id)
    name = SamplingSession.read(session).model
    entry = futures.find(id)
    if entry is None:
        return JSONResponse(
            {"error": f"the request {id} is not known here, or no longer; send it again"}, 410
        )
    waits, _ = _queue_state(entry, models.queue_state(name))
    if not await futures.wait(entry, None if waits == QueueState.ACTIVE.value else waits):
        state, reason = _queue_state(entry, models.queue_state(name))
        return JSONResponse({"queue_state": state, "queue_state_reason": reason}, 408)
    if entry.error is not None:
        entry.was_delivered = True
        return JSONResponse({"error": entry.error[0], "category": entry.error[1]})
    if metadata_only and entry.n_bytes > _LARGE:
        return JSONResponse({"status": "complete_metadata", "response_payload_size": entry.n_bytes})
    entry.was_delivered = True
    return Response(entry.answer, media_type=MEDIA_TYPE)


async def retrieve_futures(request: Request, futures: Futures) -> Response:
    """Answer which requests of a client were done after a cursor, once there are any."""
    body = await read_body(request)
    target, seconds, retrieved = body.get("target"), body.get("timeout"), body.get("retrieved_request_ids")
    if not isinstance(target, dict):
        raise BadRequestError(f"target is {shown(target)}; it must be an object")
    if seconds is not None and type(seconds) not in (int, float):
        raise BadRequestError(f"timeout is {shown(seconds)}; it must be a number of seconds")
    if retrieved is not None and not isinstance(retrieved, list):
        raise BadRequestError(f"retrieved_request_ids is {shown(retrieved)}; it must be a list")
    client = text(target, "sampling_session_id"), whole_number(target, "cloned_sampler_id", 0)
    SamplingSession.read(client[0])
    futures.forget(id for id in retrieved or () if isinstance(id, str))
    cursor = whole_number(body, "prev_cursor", 0)
    found = await futures.wait_for_any(
        client, cursor, futures.patience.poll if seconds is None else seconds
    )
    cursor = max([cursor, *(entry.number for entry in found)])
    return JSONResponse({"completions": [_completion(entry) for entry in found], "cursor": cursor})


async def cancel_future(request: Request, futures: Futures) -> Response:
    """Stop a request; the engine has its memory back at its next step."""
    futures.cancel(text(await read_body(request), "request_id"))
    return JSONResponse({})


def _queue_state(entry: Entry, engine: tuple[QueueState, str | None] | None) -> tuple[str, str | None]:
    """Return the state and the reason that a client is told of."""
    if entry.loading is not None:
        return QueueState.PAUSED_CAPACITY.value, LOADING
    state, reason = engine or (QueueState.ACTIVE, None)
    return state.value, reason


def _completion(entry: Entry) -> dict[str, Any]:
    if entry.error is not None:
        return {"state": "failed", "request_id": entry.id}
    return {
        "state": "finished",
        "request_id": entry.id,
        "response_payload_uncompressed_size": entry.n_bytes,
    }


__all__ = ["cancel_future", "retrieve_future", "retrieve_futures"]
