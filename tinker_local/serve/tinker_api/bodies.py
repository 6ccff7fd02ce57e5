"""Bodies of requests: JSON objects, and the fields in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tinker_local.errors import BadRequestError, shown

if TYPE_CHECKING:
    from starlette.requests import Request

_LARGE = 2**18  # bytes that are parsed in a thread
Body = Mapping[str, Any]


async def read_body(request: Request) -> Body:
    """Return the JSON object in a request's body; {} for an empty one.

    Raises:
        BadRequestError: the body is something else.
    """
    raw = await request.body()
    if not raw:
        return {}
    try:
        said = await asyncio.to_thread(json.loads, raw) if len(raw) > _LARGE else json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the body is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise BadRequestError(f"the body is a JSON {type(said).__name__}; it must be an object")
    return said


def text(body: Body, name: str, default: str | None = None) -> str:
    """Return a field that must be a string."""
    value = body.get(name, default)
    if not isinstance(value, str):
        raise BadRequestError(f"{name} is {shown(value)}; it must be a string")
    return value


def text_or_none(body: Body, name: str) -> str | None:
    """Return a field that may be missing or null, else must be a string."""
    return None if body.get(name) is None else text(body, name)


def whole_number(body: Body, name: str, default: int | None = None) -> int:
    """Return a field that must be an int of 64 bits, not negative."""
    value = body.get(name, default)
    if type(value) is not int or not 0 <= value < 2**63:
        raise BadRequestError(f"{name} is {shown(value)}; it must be an int from 0 to 2**63 - 1")
    return value


def flag(body: Body, name: str) -> bool:
    """Return a field that must be true or false; missing means false."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequestError(f"{name} is {shown(value)}; it must be true or false")
    return bool(value)


__all__ = ["Body", "flag", "read_body", "text", "text_or_none", "whole_number"]
