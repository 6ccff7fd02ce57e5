"""The routes of the page: its files as they are, and what the package knows of colours."""

from __future__ import annotations

import json
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tinker_local.display import scale
from tinker_local.display.style import notebook_style

if TYPE_CHECKING:
    from starlette.requests import Request

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ]
)
HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def routes() -> list[BaseRoute]:
    """Return the routes of ``/`` and of what it loads, under ``/page/``."""
    texts = {
        place.name: place.read_text(encoding="utf-8")
        for place in files(__package__).iterdir()
        if place.name.endswith(tuple(_TYPES))
    }
    texts |= {"tokens.css": notebook_style(), "scale.js": _scale()}
    places = {name: "/" if name == "index.html" else f"/page/{name}" for name in texts}
    return [Route(places[name], partial(_show, name=name, text=text)) for name, text in texts.items()]


async def _show(request: Request, name: str, text: str) -> Response:
    return Response(text, headers=HEADERS, media_type=_TYPES[name[name.rindex(".") :]])


def _scale() -> str:
    """Return the levels of colours as a JavaScript module."""
    less, more = scale.change_names("less"), scale.change_names("more")
    values = {
        "PROBABILITIES": scale.PROBABILITIES,
        "DIFFERENCES": scale.DIFFERENCES,
        "LEVELS": scale.level_names(),
        "CHANGES": [*reversed(less), f"within {scale.DIFFERENCES[0]:g}", *more],
    }
    return "".join(f"export const {name} = {json.dumps(value)};\n" for name, value in values.items())


__all__ = ["HEADERS", "routes"]
