"""Ray Serve: the endpoints of ``tinker-local serve`` as a deployment with replicas.

A replica answers a request of OpenAI's clients by itself. Tinker's protocol has futures, which are in the
replica that accepted the request; the others pass calls on to that one (``replica.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from tinker_local.distributed.cluster import import_ray
from tinker_local.distributed.replica import NAME, Replica, ServeReplicas
from tinker_local.errors import BadRequestError
from tinker_local.serve import Access, Limits, app
from tinker_local.service_client import ServiceClient
from tinker_local.store.catalog import install_command

_MOST_AT_ONCE = 2 * Limits().requests
"""Requests of a replica. The guard refuses half of these, so that calls of other replicas find room."""


def deployment(
    models: Sequence[str] = (),
    *,
    access: Access | None = None,
    num_replicas: int = 1,
    num_cpus: int = 1,
    num_gpus: float = 0,
    **options: Any,
) -> Any:
    """Return an application for ``ray.serve.run``.

    Args:
        models: names, or paths of GGUF files on every node, to open at once.
        access: who may ask; by default programs on the node, without a key.
        num_replicas: how many replicas; each has the models loaded.
        num_cpus: CPUs of a replica, and threads of llama.cpp.
        num_gpus: GPUs of a replica.
        options: of ``ServiceClient``.

    Raises:
        BadRequestError: Ray Serve is not installed.
    """
    import_ray()
    try:
        from ray import serve
    except ImportError as error:
        raise BadRequestError(
            f"a deployment needs the package ray[serve], which is missing ({error}); run: "
            f"{install_command('ray-serve')}"
        ) from None
    router, are_many = _router(), num_replicas > 1
    build = partial(
        _application,
        {"n_threads": num_cpus, **options},
        models=tuple(models),
        access=access,
        replicas=ServeReplicas() if are_many and router else None,
        stateless=are_many and not router,
    )

    deployed: Any = serve.deployment(
        name=NAME,
        num_replicas=num_replicas,
        max_ongoing_requests=_MOST_AT_ONCE,
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
        **router,
    )(serve.ingress(lambda: build())(Replica))
    return deployed.bind()


def _router() -> dict[str, Any]:
    """Return the option of a deployment that chooses its router; none where Ray has no such router.

    It brings the requests of a session (header ``x-session-id``), or of a key, to one replica.
    """
    try:
        from ray.serve.config import RequestRouterConfig
        from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
    except ImportError:
        return {}
    return {"request_router_config": RequestRouterConfig(request_router_class=ConsistentHashRouter)}


def _application(options: dict[str, Any], **given: Any) -> Any:
    """Make the application in a replica."""
    return app(ServiceClient(**options), **given)
