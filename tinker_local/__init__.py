"""Tinker's SamplingClient on your own machine: llama.cpp underneath, no service.

>>> import tinker_local as tinker
>>> client = tinker.ServiceClient().create_sampling_client(base_model="SmolLM2-135M-Instruct")

The house, from the top. Imports run down only; ``tests/test_layers.py`` holds it.

    cli              the command tinker-local: parses, calls, prints

    distributed      many machines: files of requests and endpoints on a Ray cluster

    batch            files of requests: a JSON line in, a JSON line out
    bench            how fast this machine is, with a model and with bare llama.cpp
    doctor           what this installation is made of, and what is wrong with it
    lm_eval          the model tinker-local of lm-evaluation-harness
    serve            Tinker's protocol and OpenAI's over HTTP, and a page for a browser
    tuning           which type of GGUF file is fastest here, and what it costs in quality

    service_client   opens models, hands out clients
    sampling_client  checks a request, submits it, returns a future
    rest_client      lists the models and adapters on this machine
    weights          the files a client computes with: a model, perhaps an adapter
    answers          makes a response of what the engine found
    prompts          chunks of token ids and images, as the engine takes them

    checks           what a request must be; each failure is a BadRequestError
    continued        the text that sampled tokens add to a prompt
    image_prompts    text and images, as a model was trained on them
    isolated         tries an untrusted file in a process of its own
    progress         track: follows many futures with a progress bar
    retry            RetryConfig: fewer requests at once, retries, an end to waiting
    telemetry        counters of requests and tokens, which stay on this machine

    engine           requests in, futures out: schedule, run, finish
    tokenizer        text to token ids and back, with transformers' interface

    encoding         texts to ids and ids to texts, with the arguments of transformers

    chat             conversations by the Jinja templates of model files, run in a sandbox
    llama            the one door to llama.cpp and ggml
    store            names, tinker:// paths and files on this machine
    types            requests and responses, as in tinker.types
    futures          APIFuture: can be waited for and awaited

    callbacks        functions of users, on threads of their own
    gguf             what a GGUF file says, checked, read without llama.cpp
    kernels          C++: logits to numbers, attention, matrix products
    display          log-probabilities for people: in a terminal, on a page, in a notebook
    options          how a model is opened; every option is described there
    pixels           images, decoded and resized
    queue_state      whether requests wait, and who is told
    service_only     names of the SDK that only Tinker's service can serve
    errors           the SDK's tree of errors

A prompt's way from ``sample`` to a row of logits and back:

1. ``sampling_client`` has ``checks`` look at each argument and makes a ``Request``.
2. ``engine.engine`` queues the request for the engine's thread; ``sample`` returns its future.
3. ``engine.loop`` asks ``engine.scheduler`` for a step: chunks of prompts, a token of each running sample.
4. ``engine.runner`` writes the step into a batch of ``llama.context``, which calls ``llama_decode``.
5. ``kernels`` turns the rows of logits, where llama.cpp left them, into log-probabilities and draws.
6. ``engine.scheduler`` moves each sequence on by what was computed; ``engine.loop`` ends what is complete.
7. ``answers`` makes the response on a thread pool, and the future is resolved.
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
    ImageAssetPointerChunk,
    ImageChunk,
    ModelID,
    ModelInput,
    ModelInputChunk,
    ParsedCheckpointTinkerPath,
    PromptAltTokens,
    SampledSequence,
    SampledToken,
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
    "ImageAssetPointerChunk",
    "ImageChunk",
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
    "SampledToken",
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
