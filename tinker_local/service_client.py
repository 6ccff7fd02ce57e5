"""ServiceClient: opens models and makes SamplingClients."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

from tinker_local import types
from tinker_local.engine.engine import Engine
from tinker_local.engine.sharing import ContextLimit
from tinker_local.errors import RequestFailedError
from tinker_local.futures import APIFuture, finished
from tinker_local.options import KvType, LogprobsMode, Options
from tinker_local.rest_client import RestClient
from tinker_local.retry import RetryConfig
from tinker_local.sampling_client import SamplingClient
from tinker_local.service_only import refuse, without
from tinker_local.store.model_store import ModelStore
from tinker_local.telemetry import Telemetry, TelemetryProvider
from tinker_local.weights import Weights


@without(
    "copy_weights",
    "create_custom_loss",
    "create_lora_training_client",
    "create_training_client_from_state",
    "create_training_client_from_state_with_optimizer",
    "get_console_url",
)
class ServiceClient(TelemetryProvider):
    """The entry point: opens models on this machine.

    Args:
        user_metadata, project_id, display_name, base_url, api_key, default_headers_overrides: accepted for
            compatibility with Tinker, and not used.
        n_ctx: size of the KV cache in tokens. All running requests share it. One request has at
            most this many tokens, and at most as many as the model was trained for. Default: the
            model's training context, at most 8192.
        n_threads: CPU threads that compute a token of one sample, where nothing else runs. Default:
            one for each physical core, and no more than the CPUs that a container may use.
        n_threads_batch: CPU threads that compute several tokens at once: of prompts, or of many
            samples. Default: ``n_threads``.
        n_gpu_layers: layers on the GPU, in Metal and CUDA builds of llama-cpp-python; -1 means all.
            Default: -1.
        devices: devices to compute on besides the CPU: llama.cpp's names, separated by commas, as
            in "CUDA0,CUDA1"; "none" means the CPU alone. Default: all devices.
        n_ubatch: tokens computed in one micro-batch, at least 192. More can be faster on a GPU and
            needs more memory. Default: 512.
        kv_offload: keep the KV cache on the device of its layer. If False, main memory holds it.
            Default: True.
        kv_type: number format of the KV cache: "f16", "f32" or "q8_0". "q8_0" halves the memory of
            "f16" and needs flash attention. Default: f16.
        flash_attn: use flash attention. On a CPU the kernel is our own, and False takes llama.cpp's
            attention in steps. Default: our own on a CPU, elsewhere llama.cpp decides; in steps for
            models that choose their keys.
        logprobs_mode: log-probabilities of sampled tokens: "sampling" reports those of the
            distribution they were drawn from, "raw" those of the unmodified model. Default:
            sampling.
        prefix_cache: keep finished requests in the KV cache until the room is needed. A new request
            then starts from the longest prefix in the cache. If False, a request on an idle engine
            gives the same bits each time. Default: True.
        batch_invariant: give every request the same bits as if it ran alone, on the CPU, or refuse
            the model. ``compute_logprobs`` then repeats the log-probabilities of sampled tokens
            exactly. With AVX2 both hold without it too, where our kernels compute everything: see
            doctor. Default: False.
        n_contexts: KV caches kept in memory, one for each model or adapter that was opened. Beyond
            this number those idle longest are released, and made again on use. Default: as many as
            fit half of the memory that the weights leave, at least 2.
        max_memory_mb: main memory, in MB, for the weights and KV caches of this process. A model
            that does not fit is refused before it is loaded. Default: the machine's memory; for KV
            caches, what is free.
        max_queue_mb: main memory, in MB, for the unfinished requests of a model. A request beyond
            it gets a ``RateLimitError``; one whose answer alone could take more, a
            ``BadRequestError``. Default: an eighth of the machine's memory.
        models_dir: directory in which GGUF files are found by name. Default: models/ in a checkout,
            else a directory of the user's.

    An option that is None comes from the environment (``TINKER_LOCAL_N_CTX`` and so on), else it has the
    default above.

    Raises:
        BadRequestError: an option has an impossible value.

    All ServiceClients of a process share weights. The SamplingClients of one ServiceClient share a KV cache
    for each model and adapter. As a context manager, a ServiceClient closes itself at the end.
    """

    def __init__(
        self,
        user_metadata: dict[str, str] | None = None,
        project_id: str | None = None,
        *,
        display_name: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        default_headers_overrides: Mapping[str, str] | None = None,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        n_gpu_layers: int | None = None,
        devices: str | None = None,
        n_ubatch: int | None = None,
        kv_offload: bool | None = None,
        kv_type: KvType | None = None,
        flash_attn: bool | None = None,
        logprobs_mode: LogprobsMode | None = None,
        prefix_cache: bool | None = None,
        batch_invariant: bool | None = None,
        n_contexts: int | None = None,
        max_memory_mb: int | None = None,
        max_queue_mb: int | None = None,
        models_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._options = Options.resolve(locals())  # those of the arguments that are options
        del user_metadata, project_id, display_name, base_url, api_key, default_headers_overrides
        self._store = ModelStore(self._options.models_dir)
        self._limit = ContextLimit()
        self._engines: dict[Weights, tuple[object, Engine]] = {}  # with the version of the files
        self._replaced: weakref.WeakSet[Engine] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        self._telemetry = Telemetry()

    @property
    def options(self) -> Options:
        """The options of this client, under the names of its arguments."""
        return self._options

    def create_sampling_client(
        self,
        model_path: str | None = None,
        base_model: str | None = None,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,
        *,
        lora_scale: float = 1.0,
    ) -> SamplingClient:
        """Open a model, or a model with an adapter on it.

        Args:
            model_path: a LoRA adapter or a whole model: ``tinker://RUN/sampler_weights/NAME`` for a
                checkpoint in the models directory, a name, or the path of a GGUF file.
            base_model: the name of a known model (``tinker-local models`` lists them) or the path
                of a GGUF file. With an adapter: its base, which must be the model that the adapter was
                trained on; None takes the base that the adapter names.
            retry_config: how many requests are in the engine at a time, which are retried, and how long
                the client waits for progress. None: no limits and no retries.
            record_stability_info: for training on the service; must be False.
            lora_scale: factor of the adapter's update. The update of a weight is
                lora_scale * alpha / rank * B A, with the file's alpha (without one: lora_scale * B A).
                0 gives the base's numbers.

        A downloaded checkpoint is converted first.

        Clients of one base share its weights in memory; each adapter and scale has a KV cache of its
        own. The client can be used at once; awaiting it, or ``result()``, gives the same client.

        Raises:
            ValueError: neither ``model_path`` nor ``base_model`` is given.
            NotFoundError: there is no such model; the message lists the models that are here.
            BadRequestError: a file cannot be used, or the arguments do not fit each other.
        """
        if record_stability_info:
            refuse("record_stability_info")
        weights = Weights.find(self._store, model_path, base_model, lora_scale)
        return SamplingClient(
            self._engine(weights),
            self._options,
            weights,
            base_model=base_model and os.fspath(base_model),
            retry_config=retry_config,
            telemetry=self._telemetry,
        )

    async def create_sampling_client_async(
        self,
        model_path: str | None = None,
        base_model: str | None = None,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,
        *,
        lora_scale: float = 1.0,
    ) -> SamplingClient:
        """``create_sampling_client`` as a coroutine, which loads the model in a thread."""
        return await asyncio.to_thread(
            self.create_sampling_client,
            model_path,
            base_model,
            retry_config,
            record_stability_info,
            lora_scale=lora_scale,
        )

    def create_rest_client(self) -> RestClient:
        """Return a client that lists the models and adapters on this machine."""
        return RestClient(self._store)

    def get_server_capabilities(self) -> types.GetServerCapabilitiesResponse:
        """Return the models that are on this machine."""
        return self.create_rest_client().get_server_capabilities().result()

    async def get_server_capabilities_async(self) -> types.GetServerCapabilitiesResponse:
        """``get_server_capabilities`` as a coroutine."""
        return await asyncio.to_thread(self.get_server_capabilities)

    def get_telemetry(self) -> Telemetry:
        """Return the counters of all requests of this client's SamplingClients."""
        return self._telemetry

    def close(
        self,
        status: Literal["success", "errored", "interrupted"] = "success",
        detail: str | None = None,
    ) -> APIFuture[None]:
        """Free the models; unfinished requests get a RequestFailedError. A second call has no effect.

        ``status`` and ``detail`` are accepted for compatibility with Tinker. The future is already done.
        """
        del status, detail
        with self._lock:
            self._closed = True
            engines = [*(engine for _, engine in self._engines.values()), *self._replaced]
            self._engines.clear()
        interrupted = [engine.close() for engine in engines]
        if any(interrupted):
            raise KeyboardInterrupt
        return finished(None)

    def __enter__(self) -> ServiceClient:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._options,)

    def _engine(self, weights: Weights) -> Engine:
        with self._lock:
            if self._closed:
                raise RequestFailedError("the ServiceClient was closed; make a new one")
            version = weights.version()
            opened, engine = self._engines.get(weights, (None, None))
            if engine is None or opened != version:
                if engine is not None:  # its clients keep it
                    self._replaced.add(engine)
                    del self._engines[weights]
                engine = weights.open(self._options, self._limit, self._telemetry.notice_step)
                self._engines[weights] = version, engine
            return engine


def _reopen(options: Options) -> ServiceClient:
    return ServiceClient(**options.model_dump())


__all__ = ["ServiceClient"]
