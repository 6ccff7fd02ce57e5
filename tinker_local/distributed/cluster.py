"""Ray itself: connecting to a cluster, what its nodes hold, files and images for nodes that lack them."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tinker_local.distributed.model_files import PIECE, StoredFile
from tinker_local.errors import APIConnectionError, BadRequestError, TinkerError
from tinker_local.image_prompts import image_at, is_data_url
from tinker_local.store.catalog import install_command
from tinker_local.types import ImageChunk

logger = logging.getLogger(__name__)

LOCAL = "local"
"""The address that starts Ray on this machine."""
_LOOK_SECONDS = 2.0
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


class NodeWatch:
    """Says which nodes leave a cluster, and which join it.

    Args:
        ray: the module, connected.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._alive, self._looked_at = self._look(), time.monotonic()

    def look(self, least: float = _LOOK_SECONDS) -> None:
        """Log what changed since the last look, if that was ``least`` seconds ago."""
        if time.monotonic() - self._looked_at < least:
            return
        alive, before = self._look(), self._alive
        self._alive, self._looked_at = alive, time.monotonic()
        for address in (before[id] for id in before.keys() - alive.keys()):
            logger.warning("node %s has left; others answer its lines: %d nodes", address, len(alive))
        for address in (alive[id] for id in alive.keys() - before.keys()):
            logger.warning("node %s has joined: %d nodes", address, len(alive))

    def _look(self) -> dict[str, str]:
        """Return the addresses of the nodes that are alive, by their ids."""
        return {node["NodeID"]: node["NodeManagerAddress"] for node in self._ray.nodes() if node["Alive"]}


class _Files:
    """An actor on the driver's machine, which reads images and pieces of files for the nodes.

    Args:
        files: those that may be asked for in pieces.
        home: where relative paths of images begin.
    """

    def __init__(self, files: Sequence[StoredFile], home: str) -> None:
        self._paths = {file.sha256: file.path for file in files}
        os.chdir(home)

    def piece(self, sha256: str, offset: int) -> bytes:
        with self._paths[sha256].open("rb") as file:
            file.seek(offset)
            return file.read(PIECE)

    def image(self, path: str) -> ImageChunk | TinkerError:
        try:
            return image_at(path)
        except TinkerError as error:
            return error  # raised, Ray would make another error of it


def serve_files(ray: Any, files: Sequence[StoredFile]) -> DriverFiles:
    """Start an actor on this machine that gives files to nodes that lack them."""
    actor = (
        ray.remote(_Files)
        .options(num_cpus=0, max_concurrency=4, scheduling_strategy=_here(ray))
        .remote(files, os.getcwd())
    )
    return DriverFiles(actor)


def on_this_node(ray: Any) -> dict[str, Any]:
    """Return the arguments of ``map_batches`` that keep its tasks on this machine."""
    if "label_selector" in inspect.signature(ray.data.Dataset.map_batches).parameters:
        return {"label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()}}
    return {"scheduling_strategy": _here(ray)}


def _here(ray: Any) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


@dataclass(frozen=True)
class DriverFiles:
    """Files of the driver's machine, from an actor there; can be sent to other nodes."""

    actor: Any

    def piece(self, sha256: str, offset: int) -> bytes:
        """Return a piece of a model's file; see ``Pieces``."""
        import ray

        return bytes(ray.get(self.actor.piece.remote(sha256, offset)))

    def image(self, location: str) -> ImageChunk:
        """Return an image of the driver's machine, or the one in a data URL; raises as ``image_at``."""
        import ray

        if is_data_url(location):
            return image_at(location)
        found: ImageChunk | TinkerError = ray.get(self.actor.image.remote(location))
        if isinstance(found, TinkerError):
            raise found
        return found
