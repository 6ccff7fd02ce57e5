"""Names of the SDK that only Tinker's service has: they can be imported, and raise when they are used.

A script that trains on the service and samples here keeps its imports and annotations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from tinker_local.errors import ServiceOnlyError

T = TypeVar("T", bound=type)

_CLIENTS = """
AdminClient BackcompatTrainingClientFuture LossHandle PerDatumLossFn RequestOptions Timeout
TrainingClient APIResponse AsyncAPIResponse auth resources
"""
CLIENTS = frozenset(_CLIENTS.split())
"""Of ``tinker``: training, administration, and HTTP."""

_TYPES = """
AccessibleSearchOwner ActiveSessionStatusQuery AdamOptimizerConfig AdamParams AuditLogEntry
AuditLogResponse AuthTokenResponse BillingEventInfo BillingUsageEvent BillingUsageResponse
BillingUsageSession CancelledSessionStatusQuery CheckpointBillingEvent ClientConfigRequest
ClientConfigResponse ClientDynamicConfigResponse ClientFinishedSessionStatusQuery
ClientSessionFinishErrored ClientSessionFinishInterrupted ClientSessionFinishReason
ClientSessionFinishReasonType ClientSessionFinishSuccess ClientSessionFinished CopyWeightsRequest
CopyWeightsResponse CreateCustomLossRequest CreateCustomLossResponse CreateModelRequest
CreateModelResponse CreateSamplingSessionRequest CreateSamplingSessionResponse CreateSessionRequest
CreateSessionResponse CurrentCheckpointStorageUsageItem CurrentCheckpointStorageUsageResponse
CustomLossGraph CustomLossInput CustomLossInputRank CustomLossNode Datum DimuonOptimizerConfig
DimuonParams DmelChunk EventType ExternalWeightsUrlsResponse FailedSessionStatusQuery
ForwardBackwardInput ForwardBackwardOutput ForwardBackwardRequest ForwardRequest FutureCompletion
FutureFailed FutureFinished FutureRetrieveRequest FutureRetrieveResponse FuturesRetrieveRequest
FuturesRetrieveResponse GetBillingUsageRequest GetCurrentCheckpointStorageUsageRequest GetInfoRequest
GetInfoResponse GetSamplerResponse GetSessionResponse HealthResponse
JoinSamplingSessionRequest JoinSamplingSessionResponse ListSessionsResponse LoadWeightsRequest
LoadWeightsResponse LoraConfig LossFnInputs LossFnOutput LossFnType ModelData OptimParams
OptimStepRequest OptimStepResponse OptimizerConfig OwnSearchOwner PromptProvenanceSpan ProvenanceSpans
RequestFailedResponse RequestID SampleRequest SampledProvenanceSpan SamplingClientKind
SamplingPrefillBillingEvent SamplingSampleBillingEvent SamplingSessionFuturesTarget
SaveWeightsExternalRequest SaveWeightsExternalResponse SaveWeightsExternalResponseInternal
SaveWeightsForSamplerRequest SaveWeightsForSamplerResponse SaveWeightsForSamplerResponseInternal
SaveWeightsRequest SaveWeightsResponse SearchOwner SessionActive SessionCancelled SessionEndEvent
SessionFailed SessionFailedReason SessionFailedRequestReason SessionFailedSamplingSessionReason
SessionFailedTrainingRunReason SessionHeartbeatRequest SessionHeartbeatResponse SessionSearchCursor
SessionSearchRequest SessionSearchResponse SessionStartEvent SessionStatus SessionStatusQuery
SessionSummary Severity StorageBillingEvent TelemetryBatch TelemetryEvent TelemetryResponse
TelemetrySendRequest TrainingBillingEvent TrainingRun TrainingRunsResponse UnhandledExceptionEvent
UnloadModelRequest UnloadModelResponse UntypedAPIFuture UserSearchOwner WhoamiResponse
"""
TYPES = frozenset(_TYPES.split())
"""Of ``tinker.types``: training, sound, sessions, bills, and what travels over the wire."""


REFUSES = "_refuses"
"""The attribute of methods that only say they are the service's."""


class ServiceOnly:
    """Base of the classes that stand in for those of Tinker's service."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        refuse(type(self).__name__)


def refuse(name: str) -> NoReturn:
    """Raise the error that says ``name`` is the service's."""
    raise ServiceOnlyError(
        f"{name} belongs to Tinker's service. tinker_local samples from and scores with models on this "
        "machine; for training, accounts, sessions and sound use the package tinker"
    )


def without(*names: str) -> Callable[[T], T]:
    """Return a class decorator that adds methods of these names, which raise ServiceOnlyError.

    Each also gets an ``_async`` form.
    """

    def give(cls: T) -> T:
        for name in names:
            for method in (name, f"{name}_async"):
                setattr(cls, method, _refusal(f"{cls.__name__}.{method}"))
        return cls

    return give


def _refusal(name: str) -> Callable[..., NoReturn]:
    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        refuse(name)

    method.__qualname__, method.__name__ = name, name.rpartition(".")[2]
    method.__doc__ = "Belongs to Tinker's service."
    setattr(method, REFUSES, True)
    return method


def stand_in(name: str) -> type[ServiceOnly]:
    """Return a class of that name whose constructor raises ServiceOnlyError."""
    return type(name, (ServiceOnly,), {"__doc__": "Belongs to Tinker's service; cannot be made here."})


__all__ = ["CLIENTS", "REFUSES", "TYPES", "ServiceOnly", "refuse", "stand_in", "without"]
