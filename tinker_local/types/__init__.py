"""Requests and responses, with the names and fields of ``tinker.types``."""

from typing import TYPE_CHECKING, Any

from tinker_local.errors import RequestErrorCategory
from tinker_local.types.model_input import (
    EncodedTextChunk,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
    ModelInputChunk,
)
from tinker_local.types.rest import (
    Checkpoint,
    CheckpointsListResponse,
    CheckpointType,
    Cursor,
    GetServerCapabilitiesResponse,
    ModelID,
    ParsedCheckpointTinkerPath,
    SupportedModel,
    WeightsInfoResponse,
)
from tinker_local.types.sampling import (
    PromptAltTokens,
    SampledSequence,
    SampledToken,
    SampleResponse,
    SamplingParams,
    StopReason,
)
from tinker_local.types.tensor_data import TensorData, TensorDtype
from tinker_local.types.topk_logprobs import NO_LOGPROB, TopkLogprobs

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from tinker_local.service_only import TYPES, stand_in

        if name not in TYPES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = stand_in(name)
        return found


__all__ = [
    "NO_LOGPROB",
    "Checkpoint",
    "CheckpointType",
    "CheckpointsListResponse",
    "Cursor",
    "EncodedTextChunk",
    "GetServerCapabilitiesResponse",
    "ImageAssetPointerChunk",
    "ImageChunk",
    "ModelID",
    "ModelInput",
    "ModelInputChunk",
    "ParsedCheckpointTinkerPath",
    "PromptAltTokens",
    "RequestErrorCategory",
    "SampleResponse",
    "SampledSequence",
    "SampledToken",
    "SamplingParams",
    "StopReason",
    "SupportedModel",
    "TensorData",
    "TensorDtype",
    "TopkLogprobs",
    "WeightsInfoResponse",
]
