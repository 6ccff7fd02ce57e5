"""What Tinker's service alone can do: each call is refused at once, so that the SDK does not ask again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tinker_local.serve.guard import error_body

if TYPE_CHECKING:
    from starlette.requests import Request

_TRAINING = (
    "create_model",
    "copy_weights",
    "get_info",
    "create_custom_loss",
    "forward",
    "forward_backward",
    "optim_step",
    "load_weights",
    "save_weights",
    "save_weights_for_sampler",
    "save_weights_external",
    "unload_model",
    "auth/token",
    "whoami",
    "audit",
)
_ACCOUNTS = (
    "sessions",
    "sessions/{path:path}",
    "billing/{path:path}",
    "auth/{path:path}",
    "training_runs/{path:path}",
)


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of all that is refused; they come after those that are served."""
    methods = ["GET", "POST", "PUT", "DELETE", "PATCH"]
    return [Route(f"{prefix}/{path}", refuse, methods=methods) for path in (*_TRAINING, *_ACCOUNTS)]


async def refuse(request: Request) -> Response:
    """Answer that this is Tinker's."""
    said = (
        f"{request.method} {request.url.path} belongs to Tinker's service. This is tinker-local, "
        "which samples from and scores with models on this machine; for training and accounts, unset "
        "TINKER_BASE_URL"
    )
    return Response(error_body(said, 400), 400, {"x-should-retry": "false"}, "application/json")


__all__ = ["refuse", "routes"]
