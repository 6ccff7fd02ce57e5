"""Replica: what Ray Serve makes of the endpoints, and how one replica asks another."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from tinker_local.serve.tinker_api.replicas import Call, Reply, answer

NAME = "tinker-local"
"""Of the deployment, in its application."""


class Replica:
    """The endpoints in one process of a deployment.

    Attributes:
        app: the ASGI application, which Ray Serve makes and keeps.
    """

    app: Any

    async def answer(self, call: Call) -> Reply:
        """Answer a call that another replica passed on."""
        return await answer(self.app, call)


class ServeReplicas:
    """All replicas of a deployment, as one of them sees them: Ray Serve's router finds that of a key."""

    async def ask(self, call: Call) -> Reply:
        """Have the replica of the call's key answer it.

        Raises:
            ConnectionError: that replica is gone.
        """
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        try:
            asked = self._handle.options(session_id=call.key).answer.remote(call)
            reply: Reply = await asked
        except RayTaskError:  # a fault in that replica, which is not gone
            raise
        except (RayError, RayServeException) as error:
            raise ConnectionError(type(error).__name__) from error
        return reply

    @cached_property
    def _handle(self) -> Any:
        from ray import serve

        return serve.get_deployment_handle(NAME, serve.get_replica_context().app_name)
