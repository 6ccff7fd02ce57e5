"""Tinker's SamplingClient on your own machine: llama.cpp underneath, no service.

>>> import tinker_local as tinker
>>> client = tinker.ServiceClient().create_sampling_client(base_model="SmolLM2-135M-Instruct")
"""

import logging
from typing import TYPE_CHECKING, Any

from tinker_local import types
from tinker_local.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BillingError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestFailedError,
    ServiceOnlyError,
    TinkerError,
    UnprocessableEntityError,
)
from tinker_local.futures import APIFuture
from tinker_local.progress import track
from tinker_local.queue_state import QueueState, QueueStateObserver
from tinker_local.rest_client import RestClient
from tinker_local.retry import RetryConfig
from tinker_local.sampling_client import SamplingClient
from tinker_local.service_client import ServiceClient
from tinker_local.service_only import CLIENTS, TYPES, stand_in
from tinker_local.telemetry import Telemetry, TelemetryProvider
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import (
    Checkpoint,
    CheckpointType,
    EncodedTextChunk,
    ModelID,
    ModelInput,
    ModelInputChunk,
    ParsedCheckpointTinkerPath,
    PromptAltTokens,
    SampledSequence,
    SampleResponse,
    SamplingParams,
    StopReason,
    TensorData,
    TensorDtype,
    TopkLogprobs,
)

BackcompatSamplingClientFuture = SamplingClient  # ours is there when it is returned

__title__ = "tinker_local"
__version__ = "0.1.0"

# Silent unless the user sets up logging: llama.cpp has a lot to say.
logging.getLogger(__name__).addHandler(logging.NullHandler())


class ExperimentalWarning(FutureWarning):
    """Never given here; for scripts that filter it."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Stand in for what only Tinker's service has, so that it can be imported."""
        if name not in CLIENTS and name not in TYPES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(types, name) if name in TYPES else stand_in(name)
        globals()[name] = found
        return found


__all__ = [
    "APIConnectionError",
    "APIError",
    "APIFuture",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BackcompatSamplingClientFuture",
    "BadRequestError",
    "BillingError",
    "Checkpoint",
    "CheckpointType",
    "ConflictError",
    "EncodedTextChunk",
    "ExperimentalWarning",
    "InternalServerError",
    "ModelID",
    "ModelInput",
    "ModelInputChunk",
    "NotFoundError",
    "ParsedCheckpointTinkerPath",
    "PermissionDeniedError",
    "PromptAltTokens",
    "QueueState",
    "QueueStateObserver",
    "RateLimitError",
    "RequestFailedError",
    "RestClient",
    "RetryConfig",
    "SampleResponse",
    "SampledSequence",
    "SamplingClient",
    "SamplingParams",
    "ServiceClient",
    "ServiceOnlyError",
    "StopReason",
    "Telemetry",
    "TelemetryProvider",
    "TensorData",
    "TensorDtype",
    "TinkerError",
    "Tokenizer",
    "TopkLogprobs",
    "UnprocessableEntityError",
    "__title__",
    "__version__",
    "track",
    "types",
]
