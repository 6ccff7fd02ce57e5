"""The loop that keeps one llama.cpp context busy: schedule, run, advance, finish.

``Loop._step`` is the engine in five lines. Around it, ``_turn`` takes the mail and waits for a share of the
cores, ``_compute`` sees to files, contexts and errors. Everything here runs on the engine's thread, except
what says otherwise.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeAlias

from tinker_local import kernels
from tinker_local.callbacks import InOrder
from tinker_local.engine.request import Outcome, Request
from tinker_local.engine.runner import Runner
from tinker_local.engine.scheduler import Scheduler
from tinker_local.engine.sequence import ActiveRequest
from tinker_local.engine.sharing import ContextLimit, Share, cores
from tinker_local.engine.step import Step
from tinker_local.engine.token_feed import TokenFeed
from tinker_local.errors import InternalServerError, RequestFailedError, TinkerError
from tinker_local.llama.context import Context
from tinker_local.llama.tower import EncodeAbortedError
from tinker_local.queue_state import QueueState, QueueStateObserver

_POOL_THREADS = 4
_CHECK_INTERVAL = 0.1  # seconds
OnStep: TypeAlias = Callable[[int, int], None]
_CLOSED = "the client was closed before this request finished"

logger = logging.getLogger(__name__)


class Loop:
    """The work of an engine's thread.

    The loop knows its owner only while requests are unfinished, so that an engine nobody uses can go.

    Args:
        context: the first context. It is released when ``limit`` says so, and made again for new work.
        make_context: makes another like it.
        limit: the shared budget of all contexts.
        memory_share: the fraction of that budget that this context uses.
        keeps_prefixes: whether finished sequences stay in the KV cache.
        on_step: told after each step how many tokens it prefilled and how many it sampled.

    Attributes:
        memory_share: as above.
        closing: set from any thread; the loop ends soon.
        ended: set as the loop's last act.
    """

    def __init__(
        self,
        context: Context,
        make_context: Callable[[], Context],
        limit: ContextLimit,
        memory_share: float,
        *,
        keeps_prefixes: bool,
        on_step: OnStep | None = None,
    ) -> None:
        self._on_step = on_step
        self.closing = False
        self.ended = threading.Event()
        self._observers: weakref.WeakKeyDictionary[QueueStateObserver, InOrder] = (
            weakref.WeakKeyDictionary()
        )
        self._inbox: SimpleQueue[tuple[Request, object] | None] = SimpleQueue()  # None only wakes
        self._make_context = make_context
        self._limit, self.memory_share = limit, memory_share
        self._files = context.model.files
        self._files_checked_at = 0.0
        self._make_scheduler = partial(
            Scheduler,
            context.n_cells,
            context.n_sequences,
            context.n_batch,
            context.n_rows,
            keeps_prefixes=keeps_prefixes,
            copies_whole=context.copies_whole,
        )
        self._scheduler = self._make_scheduler()
        self._scheduled: Step | None = None  # the step at work
        self._share = Share()
        self._cancellations = self._release_asked = False
        self._queue_state = QueueState.ACTIVE
        self._owner: object = None
        self._n_unfinished = 0
        self._pool = ThreadPoolExecutor(_POOL_THREADS, thread_name_prefix="tinker-local-results")
        self._context: Context | None = None
        self._use(context)

    def submit(self, request: Request, owner: object) -> None:
        """Queue a request, which keeps ``owner`` alive until it is finished; from any thread."""
        self._inbox.put((request, owner))
        if self.ended.is_set():
            self._refuse_mail()

    def observe(self, observer: QueueStateObserver) -> None:
        """Tell an observer, as long as it lives, when requests begin or cease to wait; from any thread."""
        self._observers[observer] = InOrder(type(observer).on_queue_state_change)  # which does not hold it

    def close(self) -> None:
        """Stop soon, and abort the decode or the encode in progress; from any thread."""
        self.closing = True
        if (context := self._context) is not None:
            context.abort()
        self._runner.abort_encode()
        self.wake()

    def wake(self) -> None:
        """Let the loop look at its flags; from any thread."""
        self._inbox.put(None)

    def notice_cancellation(self, future: Future[object]) -> None:
        """Drop the request of a cancelled future; a callback for ``add_done_callback``."""
        if not future.cancelled():
            return
        self._runner.abort_encode(future)
        if not self._cancellations:
            self._cancellations = True
            self.wake()

    def ask_to_release(self) -> None:
        """Free the context soon, unless there is work again; from any thread."""
        self._release_asked = True
        self.wake()

    def run(self) -> None:
        """Work until ``closing`` is set, then end all requests."""
        # An error that reaches this place concerns no single request: all end, and the loop starts over.
        # Whatever happens, every future is resolved before the thread ends.
        try:
            while not self.closing:
                try:
                    self._turn()
                except Exception as error:
                    self._start_over(error)
        finally:
            cores.leave(self._share)
            try:
                self._shut_down()
            finally:
                self.ended.set()
                self._refuse_mail()

    def _turn(self) -> None:
        """Take the mail, and compute a step if there is work."""
        self._receive()
        if self._cancellations:
            self._drop_cancelled()
        if self._release_asked:
            self._release()
        if self._scheduler.has_work and not self.closing:
            cores.take(self._share)
            self._compute()

    def _step(self) -> None:
        """The engine: schedule, run, drop what failed, advance, finish."""
        step = self._schedule()
        self._run(step)
        self._drop_failed(step)
        for active in self._scheduler.advance(step):
            self._finish(active.request, active.outcome())

    # -- around a step --------------------------------------------------------------------------

    def _compute(self) -> None:
        """Run a step where it can be run; errors end the requests that they concern."""
        # 1. The weights must still be what was opened, and a released context is made again.
        try:
            self._check_files()
            if self._context is None:
                self._use(self._make_context())
        except Exception as error:
            self._fail_all(_described(error, "no context could be made"))
            return
        # 2. The step. If it fails as a whole, so do the requests in it; the others go on.
        self._scheduled = None
        try:
            self._step()
        except Exception as error:
            if self._scheduled is None:  # the scheduler itself failed, and its state cannot be trusted
                raise
            if not self.closing:  # else the step was aborted, perhaps
                self._fail(self._scheduled, error)

    def _schedule(self) -> Step:
        step = self._scheduler.schedule()
        self._tell_observers()
        self._scheduled = step
        return step

    def _run(self, step: Step) -> None:
        self._runner.run(step)
        if self._on_step is not None:
            self._on_step(step.n_prefilled, step.n_sampled)

    def _receive(self) -> None:
        """Take the mail; wait for it only when there is nothing to compute."""
        # An idle context can be released by the shared budget; a busy one cannot.
        if self._inbox.empty() and not self._scheduler.has_work:
            cores.leave(self._share)
            if self._context is not None:
                self._limit.idle(self)
            self._take(self._inbox.get())
            self._limit.busy(self)
        while not self._inbox.empty():
            self._take(self._inbox.get())

    def _take(self, mail: tuple[Request, object] | None) -> None:
        if mail is not None:
            request, self._owner = mail
            self._n_unfinished += 1
            self._files_checked_at = 0.0
            self._scheduler.add(request)

    def _drop_cancelled(self) -> None:
        self._cancellations = False
        for request in self._scheduler.drop_cancelled():
            self._forget_one()
            request.future.set_running_or_notify_cancel()

    def _check_files(self) -> None:
        """Check the model's files before a new request, and now and then: a step can take less time."""
        now = time.monotonic()
        if now - self._files_checked_at > _CHECK_INTERVAL:
            self._files.check()
            self._files_checked_at = now

    def _drop_failed(self, step: Step) -> None:
        """End the requests that could not be computed, and forget what may have the same cause."""
        if not step.failed:
            return
        for active, error in step.failed.items():
            self._end(active, _described(error, "the request failed"))
        step.leave_out_failed()
        if not all(isinstance(error, EncodeAbortedError) for error in step.failed.values()):
            self._scheduler.forget_prefixes()

    def _end(self, active: ActiveRequest, error: Exception) -> None:
        if self._scheduler.release(active):
            self._finish(active.request, error)

    def _finish(self, request: Request, outcome: Outcome | Exception) -> None:
        """Resolve a request's future on the thread pool, after its tokens; an error comes at once."""
        resolve = partial(self._on_pool, _resolve, request, outcome)
        if isinstance(request.on_token, TokenFeed):
            request.on_token.end(resolve, now=isinstance(outcome, Exception))
        else:
            resolve()
        self._forget_one()

    def _forget_one(self) -> None:
        self._n_unfinished -= 1
        if not self._n_unfinished:
            self._owner = None

    def _on_pool(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._pool.submit(function, *arguments)
        except (RuntimeError, MemoryError):  # the interpreter is leaving, or there are no more threads
            function(*arguments)

    def _fail(self, step: Step, error: Exception) -> None:
        """End the requests of a step that failed as a whole; the others go on."""
        error = _described(error, "a step of the engine failed")
        for active in step.requests:
            self._end(active, error)
        self._scheduler.forget_prefixes()

    def _fail_all(self, error: Exception) -> None:
        for request in self._scheduler.clear():
            self._finish(request, error)

    def _start_over(self, error: Exception) -> None:
        """End all requests and go on with nothing, since the state between steps may be wrong."""
        requests, self._scheduler = self._scheduler.requests, self._make_scheduler()
        if self._context is not None:
            self._context.close()
            self._context = None
            if not self._release_asked:
                self._limit.closed(self)
        error = _described(error, "the engine failed, and started over")
        for request in requests:
            self._finish(request, error)

    def _tell_observers(self) -> None:
        n_waiting = self._scheduler.n_waiting
        state = QueueState.PAUSED_CAPACITY if n_waiting else QueueState.ACTIVE
        if state is self._queue_state:
            return
        self._queue_state = state
        reason = f"{n_waiting} requests wait for room in the KV cache" if n_waiting else None
        for observer, calls in list(self._observers.items()):
            calls.then(partial(_tell, weakref.ref(observer), state, reason))

    # -- the context's life ---------------------------------------------------------------------

    def _use(self, context: Context) -> None:
        self._runner = Runner(context)
        self._context = context
        self._limit.opened(self)

    def _release(self) -> None:
        self._release_asked = False
        if self._scheduler.has_work:
            self._limit.opened(self)  # the limit stopped counting it when it asked
        elif self._context is not None:
            self._context.close()
            self._context = None
            self._scheduler = self._make_scheduler()  # whose prefix cache is empty

    def _shut_down(self) -> None:
        while not self._inbox.empty():
            self._take(self._inbox.get())
        self._fail_all(RequestFailedError(_CLOSED))
        self._pool.shutdown(wait=False)
        if self._context is not None:
            self._context.close()
            if not self._release_asked:
                self._limit.closed(self)

    def _refuse_mail(self) -> None:
        """End the requests that were queued too late."""
        with suppress(Empty):
            while True:
                if (mail := self._inbox.get_nowait()) is not None:
                    _resolve(mail[0], RequestFailedError(_CLOSED))


def _described(error: Exception, what: str) -> Exception:
    """Return an error of ours for any exception."""
    if isinstance(error, TinkerError):
        return error
    if isinstance(error, kernels.LogitsError):
        return InternalServerError(f"the model's logits cannot be used: {error}")
    logger.error("%s", what, exc_info=error)
    if isinstance(error, MemoryError):
        return InternalServerError(f"{what}: out of memory")
    return InternalServerError(f"{what}: {error!r}")


def _resolve(request: Request, outcome: Outcome | Exception) -> None:
    future = request.future
    if future.done() and not future.cancelled():  # a pool that had no thread for it may have kept it
        return
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(request.on_token, TokenFeed) and request.on_token.error is not None:
        outcome = _described(request.on_token.error, "the callback on_token failed")
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
        return
    try:
        future.set_result(request.assemble(outcome))
    except Exception as error:
        future.set_exception(error)


def _tell(reference: weakref.ref[QueueStateObserver], state: QueueState, reason: str | None) -> None:
    if (observer := reference()) is None:
        return
    try:
        observer.on_queue_state_change(state, reason)
    except Exception:
        logger.exception("an observer of the queue's state failed")
