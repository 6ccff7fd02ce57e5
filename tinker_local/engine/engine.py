"""One llama.cpp context with a thread of its own: requests go in, their futures are resolved."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from convert.gguf.mmproj import find_mmproj
from tinker_local.engine.image import Image, Images
from tinker_local.engine.loop import Loop, OnStep
from tinker_local.engine.own_kernels import (
    batch_invariant_plan,
    check_batch_invariant,
    has_only_cpus,
    open_model,
    tower_plan,
    with_own_kernels,
)
from tinker_local.engine.request import QueueLimit, Request
from tinker_local.engine.sharing import ContextLimit
from tinker_local.engine.token_feed import Immediate, TokenFeed
from tinker_local.errors import BadRequestError, RequestFailedError
from tinker_local.futures import when_done
from tinker_local.llama.adapter import load_adapter
from tinker_local.llama.context import Context, loaded_bytes
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.machine import available_memory, check_fits, main_memory, memory_of, threads
from tinker_local.llama.model import Model
from tinker_local.llama.tower import load_tower
from tinker_local.options import Options
from tinker_local.queue_state import QueueStateObserver

_DEFAULT_N_CTX = 8192
_N_SEQUENCES = 64  # running samples and prompts at a time
_N_STATES = 8  # the same for recurrent and hybrid models, whose memory holds a whole state for each
_N_BATCH = 512
_LOGITS_FLOATS = 1 << 26  # bounds the logits of a step to 256 MiB
_MIN_ROWS = 192  # room for every sequence and two chunks of a prompt
_FEWEST_CONTEXTS = 2  # stay open in any case


class Engine:
    """Computes requests with one model, and perhaps an adapter on it.

    The engine ends, and its context is freed, in one of three ways. Somebody calls ``close()``; or the last
    reference to it and the last unfinished request are gone; or the interpreter exits. Requests that are
    still unfinished then get a ``RequestFailedError``.

    All three are one ``weakref.finalize``: ``close`` is the finalizer, which the interpreter also runs at
    exit. So the loop must not hold its engine, and does so only while requests are unfinished.

    Attributes:
        model: the weights, which other engines may share.
        n_ctx: most tokens of one request.
    """

    def __init__(
        self,
        make_context: Callable[[], Context],
        limit: ContextLimit,
        memory_share: Callable[[Context], float],
        open_images: Callable[[], Images],
        *,
        keeps_prefixes: bool,
        max_queue: int,
        on_step: OnStep | None = None,
    ) -> None:
        context = make_context()  # at once, so that the caller gets the error if there is no room
        self.model = context.model
        self.n_ctx = context.n_ctx
        self._n_batch = context.n_batch
        self._open_images = open_images
        self._queue = QueueLimit(max_queue)
        share = memory_share(context)
        self._loop = Loop(
            context, make_context, limit, share, keeps_prefixes=keeps_prefixes, on_step=on_step
        )
        self._pid = os.getpid()
        thread = threading.Thread(target=self._loop.run, name="tinker-local-engine", daemon=True)
        self.close = weakref.finalize(self, _stop, self._loop, thread, self._pid)
        thread.start()

    @classmethod
    def open(
        cls,
        path: Path,
        options: Options,
        adapter_path: Path | None,
        lora_scale: float,
        limit: ContextLimit,
        on_step: OnStep | None = None,
    ) -> Engine:
        """Load a GGUF file (or share its weights, if they are loaded) and make a context on it.

        Args:
            path: the model's file.
            options: how to open it.
            adapter_path: a LoRA to put on it.
            lora_scale: how strongly; see ``ContextPlan``.
            limit: how many contexts may stay open.
            on_step: see ``Loop``.

        Raises:
            BadRequestError: llama.cpp does not accept a file, or the LoRA is for another model, or it does
                not fit into memory.
            InternalServerError: the context cannot be made, for example for want of memory.

        With ``options.batch_invariant``, BadRequestError also says that this model, these devices or this
        llama.cpp cannot give the same bits every time.
        """
        if options.batch_invariant:
            check_batch_invariant(options)
        if is_all_in_main_memory(options):
            _check_weights(path, options.max_memory_mb)
        model = open_model(path, options)
        plan = with_own_kernels(_plan(model, options), model, options)
        if options.batch_invariant:
            plan = batch_invariant_plan(plan, model)
        if adapter_path:
            plan = replace(plan, adapter=load_adapter(model, adapter_path), lora_scale=lora_scale)
        make_context = partial(_make_context, model, plan, options)
        max_queue = main_memory() // 8 if options.max_queue_mb is None else options.max_queue_mb * 10**6
        return cls(
            make_context,
            limit,
            partial(_memory_share, options=options),
            partial(_open_images, model, options),
            keeps_prefixes=options.prefix_cache,
            max_queue=max_queue,
            on_step=on_step,
        )

    def find_image(self, data: bytes, image_format: str) -> Image:
        """Return an image of a prompt, decoded and resized; it is encoded when a request comes to it.

        Args:
            data: the bytes of its file.
            image_format: "png" or "jpeg".

        Raises:
            BadRequestError: the image cannot be read, or this model reads none.
        """
        image = self._images.find(data, image_format)
        if not image.is_causal and image.n_tokens > self._n_batch:
            raise BadRequestError(
                f"{self.model.path.name} must compute the {image.n_tokens} tokens of an image at once, and "
                f"this client computes at most {self._n_batch}; open the model with a larger n_ubatch"
            )
        return image

    @cached_property
    def _images(self) -> Images:
        """Those of the model's tower, which is opened at the first image."""
        return self._open_images()

    def submit(self, request: Request) -> None:
        """Queue a request; returns at once.

        Raises:
            RequestFailedError: the engine was closed, or belongs to the process this one was forked
                from.
            RateLimitError: too many requests wait already.
            BadRequestError: the answer could take too much memory.
        """
        if os.getpid() != self._pid:
            raise RequestFailedError(
                f"this client was opened in process {self._pid} and its engine does not live in the "
                f"forked process {os.getpid()}; make a new ServiceClient there"
            )
        if not self.close.alive:
            raise RequestFailedError("the client was closed; make a new ServiceClient")
        self._queue.admit(request)
        when_done(request.future, self._loop.notice_cancellation)
        if request.on_token is not None and not isinstance(request.on_token, Immediate):
            request = replace(request, on_token=TokenFeed(request.on_token))
        self._loop.submit(request, self)

    def observe(self, observer: QueueStateObserver) -> None:
        """Tell ``observer``, as long as it lives, when requests begin or cease to wait."""
        self._loop.observe(observer)


def _memory_share(context: Context, options: Options) -> float:
    """Return the fraction that a context uses of the budget for contexts.

    The budget is half of the memory that the weights leave, or ``options.n_contexts`` contexts.
    """
    if options.n_contexts is not None:
        return 1 / options.n_contexts
    memory = memory_of("none" if options.n_gpu_layers == 0 else options.devices)
    room = (memory - context.model.n_bytes) / 2
    return min(1 / _FEWEST_CONTEXTS, context.n_bytes / max(1, room))


def is_all_in_main_memory(options: Options) -> bool:
    """Whether the CPU computes all layers of a model, as far as options and devices tell."""
    return options.n_gpu_layers == 0 or has_only_cpus(options)


def _open_images(model: Model, options: Options) -> Images:
    """Open the tower of a model, or share it."""
    path = find_mmproj(model.path)
    if path is None:
        raise BadRequestError(
            f"{model.path.name} reads no images: there is no mmproj-*.gguf for it in {model.path.parent}. "
            "Converting a checkpoint with a vision tower makes one"
        )
    _check_weights(path, options.max_memory_mb)
    return Images.of(load_tower(model, path, tower_plan(options, threads(options)[1])))


def _check_weights(path: Path, max_memory_mb: int | None) -> None:
    """Refuse a file that is larger than memory before it is loaded."""
    check_fits(
        f"the weights of {path}",
        path.stat().st_size,
        main_memory() if max_memory_mb is None else max_memory_mb * 10**6,
        is_given=max_memory_mb is not None,
        hint="use a smaller type of it (tinker-local convert --type q4_k_m), or say max_memory_mb",
    )


def _plan(model: Model, options: Options) -> ContextPlan:
    """Return how a context is made by these options, kernels and adapters aside."""
    n_batch = options.n_ubatch or _N_BATCH
    n_threads, n_threads_batch = threads(options)
    return ContextPlan(
        n_ctx=options.n_ctx or min(model.usual_n_ctx, _DEFAULT_N_CTX),
        n_sequences=_N_STATES if model.is_recurrent else _N_SEQUENCES,
        n_batch=n_batch,
        n_rows=min(n_batch, max(_MIN_ROWS, _LOGITS_FLOATS // model.n_vocab)),
        n_threads=n_threads,
        n_threads_batch=n_threads_batch,
        kv_type=options.kv_type,
        flash_attn=options.flash_attn,
        kv_offload=options.kv_offload,
    )


def _make_context(model: Model, plan: ContextPlan, options: Options) -> Context:
    """Make a context if there is room for it."""
    if is_all_in_main_memory(options):
        _check_room(model, plan, options.max_memory_mb)
    return Context(model, plan)


def _check_room(model: Model, plan: ContextPlan, max_memory_mb: int | None) -> None:
    """Refuse a context that memory has no room for.

    What this process holds must stay within ``max_memory_mb``. If that is not given, it must stay within
    main memory, and the context within what is available now.
    """
    is_given, n_bytes = max_memory_mb is not None, plan.needed_bytes(model)
    smaller = "a smaller n_ubatch" if plan.flash_attn is False else "kv_type='q8_0'"
    hint = (
        f"use a smaller n_ctx (it is {plan.n_ctx:,}), {smaller} or a smaller n_contexts, or say "
        "max_memory_mb"
    )
    what = f"the models and KV caches of this process, with one for {model.path.name},"
    limit = main_memory() if max_memory_mb is None else max_memory_mb * 10**6
    check_fits(what, loaded_bytes() + n_bytes, limit, is_given=is_given, hint=hint)
    if not is_given:
        what = f"a KV cache, attention and logits of {model.path.name}"
        check_fits(what, n_bytes, available_memory(), is_given=False, hint=hint)


def _stop(loop: Loop, thread: threading.Thread, pid: int) -> bool:
    """End the loop; return whether Ctrl-C was pressed meanwhile."""
    interrupted = False
    if pid != os.getpid():  # there is no thread in a forked process
        return interrupted
    loop.close()
    if thread is threading.current_thread():
        return interrupted
    while not loop.ended.is_set():  # join() itself must not be interrupted: Python then thinks it ended
        try:
            loop.ended.wait()
        except KeyboardInterrupt:
            interrupted = True
    with suppress(KeyboardInterrupt):
        thread.join()
    return interrupted
