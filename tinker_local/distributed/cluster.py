"""Ray itself: connecting to a cluster, what its nodes hold, pieces of files for nodes that lack them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tinker_local.distributed.model_files import PIECE, Pieces, StoredFile
from tinker_local.errors import APIConnectionError, BadRequestError
from tinker_local.store.catalog import install_command

LOCAL = "local"
"""The address that starts Ray on this machine."""
_SHARE = 0.9  # of a node's memory, for actors: the rest is for Ray's own processes


def import_ray() -> Any:
    """Return the module ``ray``.

    Raises:
        BadRequestError: Ray is not installed; says how to install it.
    """
    try:
        import ray.data
    except ImportError as error:
        raise BadRequestError(
            f"a cluster needs the package ray[data], which is missing ({error}); run: "
            f"{install_command('ray')}"
        ) from None
    return ray


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to a cluster for a block, unless the process is connected already; yield the module ``ray``.

    Args:
        address: ``local`` starts Ray here; ``auto`` finds the cluster of this machine; HOST:PORT its head.

    Raises:
        BadRequestError: Ray is not installed.
        APIConnectionError: there is no cluster.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning of Ray 2.5x
    try:
        ray.init(
            address,
            include_dashboard=False if address == LOCAL else None,
            log_to_driver=False,
            logging_level="warning",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise APIConnectionError(
            f"there is no cluster at {address}: {error}; start one with `ray start --head`, or give {LOCAL}"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class ActorSize:
    """The CPUs, GPUs and memory that an actor takes of its node.

    Attributes:
        num_cpus: CPUs, and threads of llama.cpp.
        num_gpus: GPUs.
        memory: bytes, for weights and KV caches.
        count: how many actors the cluster holds now.
    """

    num_cpus: int
    num_gpus: float
    memory: int
    count: int

    @classmethod
    def fitting(
        cls, nodes: Sequence[dict[str, Any]], num_cpus: int | None, num_gpus: float, memory: int | None
    ) -> ActorSize:
        """Return the size for the nodes of a cluster (``ray.nodes()``).

        Args:
            nodes: the nodes; those that are gone or have no CPUs do not count.
            num_cpus: CPUs of an actor; None: those of the smallest node.
            num_gpus: GPUs of an actor.
            memory: bytes of an actor; None: its CPUs' share of the smallest node's memory.

        Raises:
            BadRequestError: no node holds such an actor.
        """
        alive = [
            node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
        ]
        cpus = num_cpus or int(min((node["CPU"] for node in alive), default=1))
        fit = [node for node in alive if node["CPU"] >= cpus and node.get("GPU", 0) >= num_gpus]
        if not fit:
            raise BadRequestError(
                f"no node of the cluster has {cpus} CPUs and {num_gpus:g} GPUs for an actor; ask for less, "
                "with --ray-cpus and --ray-gpus"
            )
        share = min(node["memory"] * min(1.0, cpus / node["CPU"]) for node in fit)
        memory = memory or int(share * _SHARE)
        count = sum(
            int(
                min(
                    node["CPU"] // cpus,
                    node["memory"] // memory,
                    node.get("GPU", 0) // num_gpus if num_gpus else node["CPU"],
                )
            )
            for node in fit
        )
        if not count:
            raise BadRequestError(
                f"no node of the cluster has {memory >> 20:,} MB of memory for an actor; ask for less with "
                "--max-memory-mb"
            )
        return cls(cpus, num_gpus, memory, count)


class _Files:
    """An actor on the driver's machine, which reads pieces of files; Ray brings them to the nodes."""

    def __init__(self, files: Sequence[StoredFile]) -> None:
        self._paths = {file.sha256: file.path for file in files}

    def piece(self, sha256: str, offset: int) -> bytes:
        with self._paths[sha256].open("rb") as file:
            file.seek(offset)
            return file.read(PIECE)


def serve_pieces(ray: Any, files: Sequence[StoredFile]) -> Pieces:
    """Start an actor on this machine that gives pieces of files to nodes that lack them."""
    actor = (
        ray.remote(_Files)
        .options(num_cpus=0, max_concurrency=4, scheduling_strategy=_here(ray))
        .remote(files)
    )
    return _Remote(actor)


def on_this_node(ray: Any) -> dict[str, Any]:
    """Return the arguments of ``map_batches`` that keep its tasks on this machine."""
    if "label_selector" in inspect.signature(ray.data.Dataset.map_batches).parameters:
        return {"label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()}}
    return {"scheduling_strategy": _here(ray)}


def _here(ray: Any) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


@dataclass(frozen=True)
class _Remote:
    """Pieces from an actor; can be sent to other nodes."""

    actor: Any

    def __call__(self, sha256: str, offset: int) -> bytes:
        import ray

        return bytes(ray.get(self.actor.piece.remote(sha256, offset)))
