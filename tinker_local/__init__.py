"""Tinker's SamplingClient on your own machine: llama.cpp underneath, no service.

>>> import tinker_local as tinker
>>> client = tinker.ServiceClient().create_sampling_client(base_model="SmolLM2-135M-Instruct")
"""

import logging

from tinker_local import types
from tinker_local.errors import (
    APIError,
    APIStatusError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RequestFailedError,
    TinkerError,
)
from tinker_local.futures import APIFuture
from tinker_local.progress import track
from tinker_local.queue_state import QueueState, QueueStateObserver
from tinker_local.sampling_client import SamplingClient
from tinker_local.service_client import ServiceClient
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import (
    EncodedTextChunk,
    ModelInput,
    SampledSequence,
    SampleResponse,
    SamplingParams,
    StopReason,
    TopkLogprobs,
)

__version__ = "0.1.0"

# Silent unless the user sets up logging: llama.cpp has a lot to say.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "APIError",
    "APIFuture",
    "APIStatusError",
    "BadRequestError",
    "EncodedTextChunk",
    "InternalServerError",
    "ModelInput",
    "NotFoundError",
    "QueueState",
    "QueueStateObserver",
    "RequestFailedError",
    "SampleResponse",
    "SampledSequence",
    "SamplingClient",
    "SamplingParams",
    "ServiceClient",
    "StopReason",
    "TinkerError",
    "Tokenizer",
    "TopkLogprobs",
    "track",
    "types",
]
