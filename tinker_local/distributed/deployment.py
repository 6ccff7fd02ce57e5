"""Ray Serve: the endpoints of ``tinker-local serve`` as a deployment with replicas.

A replica answers a request of OpenAI's clients by itself, so any number of replicas serves these. Tinker's
protocol keeps its futures in the process that has the request: with several replicas it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from tinker_local.distributed.cluster import import_ray
from tinker_local.errors import BadRequestError
from tinker_local.serve import Access, app
from tinker_local.service_client import ServiceClient
from tinker_local.store.catalog import install_command

SESSION = "x-session-id"
"""Header that sends the requests of a session to one replica: the one with their prefix in its cache."""
_STICKY = "ray.serve.experimental.consistent_hash_router"


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
        from ray.serve.config import RequestRouterConfig
    except ImportError as error:
        raise BadRequestError(
            f"a deployment needs the package ray[serve], which is missing ({error}); run: "
            f"{install_command('ray-serve')}"
        ) from None
    router = {"request_router_class": f"{_STICKY}:ConsistentHashRouter"} if find_spec(_STICKY) else {}
    build = partial(
        _application,
        models=tuple(models),
        access=access,
        stateless=num_replicas > 1,
        options={"n_threads": num_cpus, **options},
    )

    deployed: Any = serve.deployment(
        name="tinker-local",
        num_replicas=num_replicas,
        max_ongoing_requests=1024,
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
        request_router_config=RequestRouterConfig(**router),
    )(serve.ingress(lambda: build())(_Endpoints))
    return deployed.bind()


class _Endpoints:
    """What Ray Serve makes a replica of; the application is all it has."""


def _application(
    models: Sequence[str], access: Access | None, stateless: bool, options: dict[str, Any]
) -> Any:
    """Make the application in a replica."""
    return app(ServiceClient(**options), models=models, access=access, stateless=stateless)
