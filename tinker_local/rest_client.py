"""RestClient: the models and adapters on this machine, by the names of the SDK's REST client."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tinker_local import types
from tinker_local.errors import BadRequestError, NotFoundError
from tinker_local.futures import APIFuture, finished
from tinker_local.gguf.file import read_head
from tinker_local.options import Options
from tinker_local.service_only import without
from tinker_local.store.inventory import Holding, inventory
from tinker_local.store.model_store import ModelStore
from tinker_local.telemetry import Telemetry, TelemetryProvider


@without(
    "assign_session_project",
    "copy_weights",
    "delete_checkpoint",
    "delete_checkpoint_from_tinker_path",
    "export_session_trace",
    "get_audit_log",
    "get_billing_usage",
    "get_current_checkpoint_storage_usage",
    "get_external_weights_urls",
    "get_sampler",
    "get_session",
    "get_training_run",
    "get_training_run_by_tinker_path",
    "list_sessions",
    "list_training_runs",
    "publish_checkpoint_from_tinker_path",
    "search_sessions",
    "set_checkpoint_ttl_from_tinker_path",
    "unpublish_checkpoint_from_tinker_path",
    "whoami",
)
class RestClient(TelemetryProvider):
    """Lists the models and adapters on this machine. The SDK's other methods belong to the service.

    Args:
        base_url, api_key: accepted for compatibility with Tinker, and not used.
    """

    def __init__(
        self,
        _holder: ModelStore | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        del base_url, api_key
        self._store = _holder or ModelStore(Options.resolve({}).models_dir)

    def get_server_capabilities(self) -> APIFuture[types.GetServerCapabilitiesResponse]:
        """Return the models that ``create_sampling_client(base_model=...)`` opens."""
        models = [_supported(holding) for holding in self._usable() if not holding.is_adapter]
        return finished(types.GetServerCapabilitiesResponse(supported_models=models))

    def list_user_checkpoints(
        self, limit: int = 100, offset: int = 0
    ) -> APIFuture[types.CheckpointsListResponse]:
        """Return the adapters on this machine, newest first; a ``tinker_path`` serves as ``model_path``."""
        found = self._checkpoints()
        cursor = types.Cursor(offset=offset, limit=limit, total_count=len(found))
        part = found[offset : offset + limit]
        return finished(types.CheckpointsListResponse(checkpoints=part, cursor=cursor))

    async def list_user_checkpoints_async(
        self, limit: int = 100, offset: int = 0
    ) -> types.CheckpointsListResponse:
        """``list_user_checkpoints`` as a coroutine."""
        return await self.list_user_checkpoints(limit, offset)

    def list_checkpoints(self, training_run_id: types.ModelID) -> APIFuture[types.CheckpointsListResponse]:
        """Return the checkpoints of a training run on this machine, newest first."""
        head = f"tinker://{training_run_id}/"
        found = [
            checkpoint for checkpoint in self._checkpoints() if checkpoint.tinker_path.startswith(head)
        ]
        return finished(types.CheckpointsListResponse(checkpoints=found))

    async def list_checkpoints_async(self, training_run_id: types.ModelID) -> types.CheckpointsListResponse:
        """``list_checkpoints`` as a coroutine."""
        return await self.list_checkpoints(training_run_id)

    def get_weights_info_by_tinker_path(self, tinker_path: str) -> APIFuture[types.WeightsInfoResponse]:
        """Return an adapter's base model and rank.

        Raises:
            NotFoundError: the adapter is not here; the message lists the adapters that are.
            BadRequestError: the adapter does not name its base model.
        """
        adapters = {_model_path(holding): holding for holding in self._usable() if holding.is_adapter}
        if tinker_path not in adapters:
            raise NotFoundError(
                f"{tinker_path} is not on this machine; there are: {', '.join(adapters) or 'none'}"
            )
        adapter = adapters[tinker_path]
        if adapter.base_name is None:
            raise BadRequestError(f"{adapter.path} does not name the model it was trained on")
        rank = _rank(adapter.path) if adapter.provenance else None  # known once it is converted
        info = types.WeightsInfoResponse(base_model=adapter.base_name, is_lora=True, lora_rank=rank)
        return finished(info)

    def get_telemetry(self) -> Telemetry | None:
        """Return None: nothing is counted here."""
        return None

    def _usable(self) -> list[Holding]:
        return [holding for holding in inventory(self._store) if not holding.problem]

    def _checkpoints(self) -> list[types.Checkpoint]:
        found = [_checkpoint(holding) for holding in self._usable() if holding.is_adapter]
        return sorted(found, key=lambda checkpoint: checkpoint.time, reverse=True)


def _supported(holding: Holding) -> types.SupportedModel:
    return types.SupportedModel(
        model_name=holding.name,
        max_context_length=read_head(holding.path).context_length,
        trainable=False,
        sampleable=True,
    )


def _checkpoint(holding: Holding) -> types.Checkpoint:
    path = _model_path(holding)
    return types.Checkpoint(
        checkpoint_id="/".join(path.split("/")[3:]) if path.startswith("tinker://") else holding.name,
        checkpoint_type="sampler",
        time=datetime.fromtimestamp(holding.path.stat().st_mtime, UTC),
        tinker_path=path,
        size_bytes=holding.n_bytes,
    )


def _model_path(holding: Holding) -> str:
    """Return the ``model_path`` of an adapter: its path on Tinker, else its file."""
    return holding.name if holding.name.startswith("tinker://") else str(holding.path)


def _rank(path: Path) -> int:
    """Return the largest rank among an adapter's matrices."""
    tensors = read_head(path).tensors.items()
    return max((info.ne[0] for name, info in tensors if name.endswith(".lora_b")), default=0)


__all__ = ["RestClient"]
