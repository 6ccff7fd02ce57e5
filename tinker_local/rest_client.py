"""RestClient: what there is on this machine, by the names of the SDK's REST client."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tinker_local import types
from tinker_local.engine.gguf_file import GgufFile, is_adapter
from tinker_local.errors import BadRequestError
from tinker_local.futures import APIFuture, finished
from tinker_local.model_store import ModelStore
from tinker_local.options import Options
from tinker_local.service_only import refuse
from tinker_local.telemetry import Telemetry, TelemetryProvider

_OF_THE_SERVICE = frozenset(
    f"{name}{suffix}"
    for name in (
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
        "get_weights_info_by_tinker_path",
        "list_checkpoints",
        "list_sessions",
        "list_training_runs",
        "publish_checkpoint_from_tinker_path",
        "search_sessions",
        "set_checkpoint_ttl_from_tinker_path",
        "unpublish_checkpoint_from_tinker_path",
        "whoami",
    )
    for suffix in ("", "_async")
)


class RestClient(TelemetryProvider):
    """Says which models and adapters are on this machine. All else of the SDK's class is the service's.

    Args:
        base_url, api_key: taken for compatibility with Tinker; not used.
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
        """Return the models that ``create_sampling_client(base_model=...)`` opens; none can be trained."""
        models = [_supported(name, path) for name, path in self._here() if not is_adapter(path)]
        return finished(types.GetServerCapabilitiesResponse(supported_models=models))

    def list_user_checkpoints(
        self, limit: int = 100, offset: int = 0
    ) -> APIFuture[types.CheckpointsListResponse]:
        """Return the adapters in the models directory, the newest first."""
        found = [_checkpoint(name, path) for name, path in self._here() if is_adapter(path)]
        found.sort(key=lambda checkpoint: checkpoint.time, reverse=True)
        cursor = types.Cursor(offset=offset, limit=limit, total_count=len(found))
        part = found[offset : offset + limit]
        return finished(types.CheckpointsListResponse(checkpoints=part, cursor=cursor))

    async def list_user_checkpoints_async(
        self, limit: int = 100, offset: int = 0
    ) -> types.CheckpointsListResponse:
        """``list_user_checkpoints`` as a coroutine."""
        return await self.list_user_checkpoints(limit, offset)

    def get_telemetry(self) -> Telemetry | None:
        """Return None: nothing is counted here."""
        return None

    def _here(self) -> list[tuple[str, Path]]:
        """The names and files of what is installed."""
        return [(model.name, model.path) for model in self._store.models() if model.path is not None]

    def __getattr__(self, name: str) -> Any:
        if name in _OF_THE_SERVICE:
            return partial(_refuse, f"RestClient.{name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _supported(name: str, path: Path) -> types.SupportedModel:
    try:
        context_length = GgufFile(path).context_length
    except BadRequestError:  # said in full when it is opened
        context_length = None
    return types.SupportedModel(
        model_name=name, max_context_length=context_length, trainable=False, sampleable=True
    )


def _checkpoint(name: str, path: Path) -> types.Checkpoint:
    status = path.stat()
    return types.Checkpoint(
        checkpoint_id=f"sampler_weights/{name}",
        checkpoint_type="sampler",
        time=datetime.fromtimestamp(status.st_mtime, UTC),
        tinker_path=str(path),
        size_bytes=status.st_size,
    )


def _refuse(name: str, *args: Any, **kwargs: Any) -> Any:
    refuse(name)


__all__ = ["RestClient"]
