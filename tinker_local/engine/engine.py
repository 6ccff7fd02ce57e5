"""The loop that keeps one llama.cpp context busy: schedule, decode, kernels, finish."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from tinker_local import kernels
from tinker_local.engine.cpu import default_threads
from tinker_local.engine.llama import Context, load_adapter, load_model
from tinker_local.engine.scheduler import Scheduler
from tinker_local.engine.sequence import Outcome, Prompt, Request, Sample
from tinker_local.engine.step import Copy, Step
from tinker_local.errors import InternalServerError, RequestFailedError, TinkerError
from tinker_local.options import Options

_POOL_THREADS = 4
_DEFAULT_N_CTX = 8192
_N_SEQUENCES = 64  # running samples and prompts at a time
_N_STATES = 8  # the same for recurrent and hybrid models, whose memory holds a whole state for each
_N_BATCH = 512
_LOGITS_FLOATS = 1 << 26  # bounds the logits of a step to 256 MiB
_MIN_ROWS = 192  # room for every sequence and two chunks of a prompt

logger = logging.getLogger(__name__)


class Engine:
    """A context with a thread of its own. Requests go in, their futures are resolved.

    The thread ends, and the context is freed, on ``close()``, when the last reference to the engine
    and the last unfinished request are gone, or when the interpreter leaves; requests that are still
    unfinished then get a ``RequestFailedError``.
    """

    def __init__(self, context: Context, *, keeps_prefixes: bool = False) -> None:
        self.model = context.model
        self.n_ctx = context.n_ctx
        self._loop = _Loop(context, keeps_prefixes)
        self._pid = os.getpid()
        thread = threading.Thread(target=self._loop.run, name="tinker-local-engine", daemon=True)
        self.close = weakref.finalize(self, _stop, self._loop, thread)
        thread.start()

    @classmethod
    def open(
        cls,
        path: Path,
        options: Options,
        adapter_path: Path | None = None,
        lora_scale: float = 1.0,
    ) -> Engine:
        """Load a GGUF file (or share its weights, if they are loaded) and make a context on it.

        Args:
            path: the model's file.
            options: how to open it.
            adapter_path: a LoRA to put on it.
            lora_scale: how strongly; see ``Context``.

        Raises:
            BadRequestError: llama.cpp does not accept a file, or the LoRA is for another model.
            InternalServerError: the context cannot be made, for example for want of memory.
        """
        model = load_model(path, options.n_gpu_layers, options.devices)
        n_batch = options.n_ubatch or _N_BATCH
        context = Context(
            model,
            n_ctx=options.n_ctx or min(model.n_ctx_train, _DEFAULT_N_CTX),
            n_sequences=_N_STATES if model.is_recurrent else _N_SEQUENCES,
            n_batch=n_batch,
            n_rows=min(n_batch, max(_MIN_ROWS, _LOGITS_FLOATS // model.n_vocab)),
            n_threads=options.n_threads or default_threads(),
            kv_type=options.kv_type,
            flash_attn=options.flash_attn,
            kv_offload=options.kv_offload,
            adapter=load_adapter(model, adapter_path) if adapter_path else None,
            lora_scale=lora_scale,
        )
        return cls(context, keeps_prefixes=options.prefix_cache)

    def submit(self, request: Request) -> None:
        """Queue a request; returns at once.

        Raises:
            RequestFailedError: the engine was closed, or belongs to the process this one was forked
                from.
        """
        if os.getpid() != self._pid:
            raise RequestFailedError(
                f"this client was opened in process {self._pid} and its engine does not live in the "
                f"forked process {os.getpid()}; make a new ServiceClient there"
            )
        if not self.close.alive:
            raise RequestFailedError("the client was closed; make a new ServiceClient")
        request.future.add_done_callback(self._loop.notice_cancellation)
        self._loop.inbox.put(_Mail(request, self))


@dataclass(frozen=True, slots=True)
class _Mail:
    """A request, and the engine it keeps alive until it is finished."""

    request: Request
    engine: Engine


def _stop(loop: _Loop, thread: threading.Thread) -> None:
    loop.closing = True
    loop.inbox.put(None)
    if thread is not threading.current_thread():
        thread.join()


class _Loop:
    """What runs on the engine's thread. It knows the engine only through unfinished requests."""

    def __init__(self, context: Context, keeps_prefixes: bool) -> None:
        self.inbox: SimpleQueue[_Mail | None] = SimpleQueue()  # None only wakes the thread
        self.closing = False
        self._cancellations = False
        self._context = context
        self._scheduler = Scheduler(
            context.n_cells,
            context.n_sequences,
            context.n_batch,
            context.n_rows,
            keeps_prefixes=keeps_prefixes,
            whole_only=context.model.is_recurrent,
        )
        self._engines: dict[Request, Engine] = {}
        self._pool = ThreadPoolExecutor(_POOL_THREADS, thread_name_prefix="tinker-local-results")

    def notice_cancellation(self, future: Future[object]) -> None:
        if future.cancelled():
            self._cancellations = True
            self.inbox.put(None)

    def run(self) -> None:
        while not self.closing:
            self._receive()
            if self._cancellations:
                self._drop_cancelled()
            if self._scheduler.has_work and not self.closing:
                self._step()
        self._shut_down()

    def _receive(self) -> None:
        """Take the mail; wait for it only when there is nothing to compute."""
        while not self.inbox.empty() or not (self._scheduler.has_work or self.closing):
            mail = self.inbox.get()
            if mail is not None:
                self._accept(mail)
            elif self._cancellations or self.closing:
                return

    def _accept(self, mail: _Mail) -> None:
        self._engines[mail.request] = mail.engine
        self._scheduler.add(mail.request)

    def _drop_cancelled(self) -> None:
        self._cancellations = False
        for request in self._scheduler.drop_cancelled():
            self._engines.pop(request)
            request.future.set_running_or_notify_cancel()

    def _step(self) -> None:
        step = self._scheduler.schedule()
        try:
            self._decode(step)
            for prompt in self._scheduler.advance(step):
                self._finish(prompt.request, Outcome.of(prompt))
        except Exception as error:
            self._fail(step, error)

    def _decode(self, step: Step) -> None:
        for edit in step.edits:
            if isinstance(edit, Copy):
                self._context.copy_sequence(edit.source, edit.target, edit.length)
            else:
                self._context.remove_sequence(edit.sequence)
        for prompt in step.kept:
            self._go_on_from_row(prompt)
        if step.samples or step.chunks:
            n_tokens, n_rows = _fill(self._context, step)
            self._context.decode(n_tokens)
            self._read(step, self._context.logits(n_rows))

    def _go_on_from_row(self, prompt: Prompt) -> None:
        """Use the row that was kept after a prompt's cached tokens."""
        row = prompt.row
        if row is None:
            return
        if prompt.n_remaining:
            _score(prompt, prompt.n_computed, row[None], self._context.n_threads)
        else:
            self._draw([(sample, 0) for sample in _not_begun(prompt)], row[None])

    def _read(self, step: Step, logits: NDArray[np.float32]) -> None:
        """Turn the rows of logits into numbers: first the samples' rows, then the chunks'."""
        row = len(step.samples)
        drawing = [(sample, index) for index, sample in enumerate(step.samples)]
        for chunk in step.chunks:
            end, sequence = row + chunk.n_rows, chunk.sequence
            if isinstance(sequence, Sample):
                drawing += [(sequence, end - 1)] if chunk.is_last else []
            elif isinstance(sequence, Prompt) and chunk.n_rows:
                if sequence.request.scores_prompt:
                    first = chunk.stop - chunk.n_rows + 1
                    _score(sequence, first, logits[row:end], self._context.n_threads)
                if chunk.is_last:
                    drawing += [(sample, end - 1) for sample in _not_begun(sequence)]
                if chunk.is_last or chunk.stop == sequence.snapshot_at:
                    sequence.row = logits[end - 1].copy()
            row = end
        self._draw(drawing, logits)

    def _draw(self, drawing: list[tuple[Sample, int]], logits: NDArray[np.float32]) -> None:
        if not drawing:
            return
        samples = [sample for sample, _ in drawing]
        requests = [sample.prompt.request for sample in samples]
        draws = kernels.sample_rows(
            logits,
            rows=np.array([row for _, row in drawing], np.int32),
            temperature=np.array([r.temperature for r in requests], np.float32),
            top_k=np.array([r.top_k for r in requests], np.int32),
            top_p=np.array([r.top_p for r in requests], np.float32),
            seed=np.array([r.seed for r in requests], np.uint64),
            sample=np.array([s.index for s in samples], np.uint64),
            position=np.array([s.length for s in samples], np.uint64),
            n_threads=self._context.n_threads,
        )
        drawn = zip(
            samples,
            requests,
            draws.tokens.tolist(),
            draws.logprobs.tolist(),
            draws.raw_logprobs.tolist(),
            strict=True,
        )
        for sample, request, token, logprob, raw_logprob in drawn:
            sample.append(
                token,
                raw_logprob if request.raw_logprobs else logprob,
                self._context.model.describe,
            )
            if request.on_token is not None:
                request.on_token(sample.index, token)

    def _finish(self, request: Request, outcome: Outcome | Exception) -> None:
        """Resolve a request's future on the thread pool, where callbacks cannot hold up the loop."""
        try:
            self._pool.submit(_resolve, request, outcome)
        except RuntimeError:  # the interpreter is leaving and has shut its pools down
            _resolve(request, outcome)
        self._engines.pop(request)

    def _fail(self, step: Step, error: Exception) -> None:
        """End the requests of a step that could not be computed; the others go on."""
        if isinstance(error, kernels.LogitsError):
            error = InternalServerError(f"the model's logits cannot be used: {error}")
        elif not isinstance(error, TinkerError):
            logger.exception("a step of the engine failed")
            error = InternalServerError(f"the engine failed: {error!r}")
        for prompt in step.prompts:
            if prompt.request in self._engines:
                self._scheduler.release(prompt)
                self._finish(prompt.request, error)

    def _shut_down(self) -> None:
        while not self.inbox.empty():
            mail = self.inbox.get()
            if mail is not None:
                self._accept(mail)
        error = RequestFailedError("the client was closed before this request finished")
        for request in self._scheduler.clear():
            self._finish(request, error)
        self._pool.shutdown(wait=False)
        self._context.close()


def _fill(context: Context, step: Step) -> tuple[int, int]:
    """Write a step into the context's batch; return its numbers of tokens and flagged rows."""
    batch, n = context.batch, len(step.samples)
    batch.tokens[:n] = [sample.drawn[-1] for sample in step.samples]
    batch.positions[:n] = [sample.n_computed for sample in step.samples]
    batch.sequences[:n] = [sample.id for sample in step.samples]
    batch.flags[:n] = 1
    n_rows = n
    for chunk in step.chunks:
        end = n + chunk.stop - chunk.start
        batch.tokens[n:end] = chunk.tokens
        batch.positions[n:end] = np.arange(chunk.start, chunk.stop)
        batch.sequences[n:end] = chunk.sequence.id
        batch.flags[n:end] = 0
        batch.flags[end - chunk.n_rows : end] = 1
        n, n_rows = end, n_rows + chunk.n_rows
    return n, n_rows


def _not_begun(prompt: Prompt) -> list[Sample]:
    return [sample for sample in prompt.samples if not (sample.drawn or sample.stop_reason)]


def _score(prompt: Prompt, first: int, logits: NDArray[np.float32], n_threads: int) -> None:
    """Score tokens of a prompt from ``first`` on, each by the row of logits before it."""
    targets = prompt.tokens[first : first + len(logits)]
    if len(targets) == 0:  # only the row after the last token
        return
    found = kernels.score_rows(
        logits[: len(targets)],
        targets=targets,
        topk=prompt.request.topk_prompt_logprobs,
        n_threads=n_threads,
    )
    scored = slice(first, first + len(targets))
    prompt.scores.logprobs[scored] = found.target_logprobs
    if found.topk_ids is not None:
        prompt.scores.topk_ids[scored] = found.topk_ids
        prompt.scores.topk_logprobs[scored] = found.topk_logprobs


def _resolve(request: Request, outcome: Outcome | Exception) -> None:
    future = request.future
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
        return
    try:
        future.set_result(request.assemble(outcome))
    except Exception as error:
        future.set_exception(error)
