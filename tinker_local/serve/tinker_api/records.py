"""What is here: capabilities, samplers, checkpoints and their training runs, by Tinker's names.

A training run is what the checkpoints of one ``tinker://RUN/`` have in common. Of its training nothing is
known here. Adapters that have no ``tinker://`` path are no part of a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tinker_local.errors import BadRequestError, NotFoundError, shown
from tinker_local.rest_client import RestClient
from tinker_local.serve.served_models import ModelName, ServedModels, public_name
from tinker_local.serve.tinker_api.ids import SamplingSession
from tinker_local.types import Checkpoint, ParsedCheckpointTinkerPath

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")
Answer = dict[str, Any]
_MOST = 100_000  # checkpoints that are looked at


class Records:
    """Answers questions on the store; reads files, so it works in a thread.

    Args:
        models: names of models.
        rest: the client that lists the store.
    """

    def __init__(self, models: ServedModels, rest: RestClient) -> None:
        self._models, self._rest = models, rest

    def capabilities(self) -> Answer:
        """Return the models that can be sampled from."""
        found = self._rest.get_server_capabilities().result().supported_models
        return {
            "supported_models": [
                model.model_dump() | {"model_name": public_name(model.model_name or "")} for model in found
            ]
        }

    def sampler(self, id: str) -> Answer:
        """Return the model of a sampling session."""
        name = SamplingSession.read(id).model
        base = self._models.base_name(name)
        if base is None:
            raise NotFoundError(f"{name} does not name the model it was trained on; give base_model")
        return {"sampler_id": id, "base_model": base, "model_path": name.checkpoint}

    def weights_info(self, tinker_path: str) -> Answer:
        """Return a checkpoint's base model and rank."""
        self._models.check(ModelName(checkpoint=tinker_path))
        return (
            self._rest.get_weights_info_by_tinker_path(tinker_path).result().model_dump(exclude_none=True)
        )

    def checkpoints(self, query: Mapping[str, str]) -> Answer:
        """Return a part of the checkpoints, the newest first."""
        found, page = _part(self._checkpoints(), query)
        return {"checkpoints": _as_json(found), "cursor": page}

    def checkpoints_of(self, run: str) -> Answer:
        """Return the checkpoints of a training run."""
        return {"checkpoints": _as_json(self._by_run().get(run, []))}

    def training_runs(self, query: Mapping[str, str]) -> Answer:
        """Return a part of the training runs, the newest first."""
        runs, page = _part(list(self._by_run().items()), query)
        return {"training_runs": [self._described(*run) for run in runs], "cursor": page}

    def training_run(self, run: str) -> Answer:
        """Return a training run."""
        if (found := self._by_run().get(run)) is None:
            raise NotFoundError(f"no checkpoint of the training run {shown(run)} is on this machine")
        return self._described(run, found)

    def _described(self, run: str, checkpoints: list[Checkpoint]) -> Answer:
        newest = checkpoints[0]
        info = self._rest.get_weights_info_by_tinker_path(newest.tinker_path).result()
        return {
            "training_run_id": run,
            "base_model": info.base_model,
            "model_owner": "local",
            "is_lora": info.is_lora,
            "lora_rank": info.lora_rank,
            "last_request_time": newest.time.isoformat(),
            "last_sampler_checkpoint": newest.model_dump(mode="json"),
        }

    def _by_run(self) -> dict[str, list[Checkpoint]]:
        """Return the checkpoints of each training run, the newest first."""
        runs: dict[str, list[Checkpoint]] = {}
        for checkpoint in self._checkpoints():
            runs.setdefault(_run_of(checkpoint), []).append(checkpoint)
        return runs

    def _checkpoints(self) -> list[Checkpoint]:
        """Return the adapters that have a tinker:// path; those of others are files of this machine."""
        found = self._rest.list_user_checkpoints(_MOST).result().checkpoints
        return [checkpoint for checkpoint in found if checkpoint.tinker_path.startswith("tinker://")]


def _run_of(checkpoint: Checkpoint) -> str:
    return ParsedCheckpointTinkerPath.from_tinker_path(checkpoint.tinker_path).training_run_id


def _as_json(checkpoints: list[Checkpoint]) -> list[Answer]:
    return [checkpoint.model_dump(mode="json") for checkpoint in checkpoints]


def _part(found: list[T], query: Mapping[str, str]) -> tuple[list[T], Answer]:
    """Return the part of a list that a query asks for, and what says where it is."""
    limit, offset = _number(query, "limit", "100"), _number(query, "offset", "0")
    return found[offset : offset + limit], {"offset": offset, "limit": limit, "total_count": len(found)}


def _number(query: Mapping[str, str], name: str, default: str) -> int:
    value = query.get(name, default)
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise BadRequestError(f"{name} is {shown(value)}; it must be an int of at least 0")
    return int(value)


__all__ = ["Records"]
