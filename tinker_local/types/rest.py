"""What ``RestClient`` answers: the models and adapters of this machine, in the SDK's types."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

CheckpointType: TypeAlias = Literal["training", "sampler", "external"]
ModelID: TypeAlias = str

_SEGMENTS: dict[str, CheckpointType] = {
    "weights": "training",
    "sampler_weights": "sampler",
    "external_weights": "external",
}


class _Answer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class SupportedModel(_Answer):
    """A model that can be sampled from."""

    model_name: str | None = None
    max_context_length: int | None = None
    trainable: bool | None = None
    sampleable: bool | None = None


class GetServerCapabilitiesResponse(_Answer):
    """The models that are on this machine."""

    supported_models: list[SupportedModel]


class Checkpoint(_Answer):
    """Weights that ``create_sampling_client(model_path=...)`` opens by their ``tinker_path``."""

    checkpoint_id: str
    checkpoint_type: CheckpointType
    time: datetime
    tinker_path: str
    size_bytes: int | None = None
    public: bool = False
    user_metadata: dict[str, str] | None = None
    expires_at: datetime | None = None


class ParsedCheckpointTinkerPath(_Answer):
    """The parts of ``tinker://RUN/KIND/NAME``."""

    tinker_path: str
    training_run_id: str
    checkpoint_type: CheckpointType
    checkpoint_id: str

    @classmethod
    def from_tinker_path(cls, tinker_path: str) -> ParsedCheckpointTinkerPath:
        """Split a path into its parts.

        Raises:
            ValueError: the path has another form.
        """
        scheme, _, rest = tinker_path.partition("://")
        parts = rest.split("/")
        if scheme != "tinker" or len(parts) != 3 or parts[1] not in _SEGMENTS:
            raise ValueError(
                f"{tinker_path!r} is not of the form tinker://RUN/KIND/NAME, where KIND is one of "
                f"{', '.join(_SEGMENTS)}"
            )
        return cls(
            tinker_path=tinker_path,
            training_run_id=parts[0],
            checkpoint_type=_SEGMENTS[parts[1]],
            checkpoint_id="/".join(parts[1:]),
        )


class Cursor(_Answer):
    """The part of a longer list that a response holds."""

    offset: int
    limit: int
    total_count: int


class CheckpointsListResponse(_Answer):
    """A list of checkpoints, or a part of it."""

    checkpoints: list[Checkpoint]
    cursor: Cursor | None = None


class WeightsInfoResponse(_Answer):
    """An adapter's base model and rank; the optimizer and the trained layers are not known here."""

    base_model: str
    is_lora: bool
    lora_rank: int | None = None
    train_unembed: bool | None = None
    train_mlp: bool | None = None
    train_attn: bool | None = None


__all__ = [
    "Checkpoint",
    "CheckpointType",
    "CheckpointsListResponse",
    "Cursor",
    "GetServerCapabilitiesResponse",
    "ModelID",
    "ParsedCheckpointTinkerPath",
    "SupportedModel",
    "WeightsInfoResponse",
]
