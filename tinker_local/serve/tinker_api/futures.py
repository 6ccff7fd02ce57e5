"""Futures: the requests of Tinker's clients, from ``asample`` until their answers were fetched.

A client sends a request, gets its id at once, and asks for the answer by that id: a long poll, which ends
with 408 and a word on the queue while there is none. So one request takes many HTTP requests, any of which
may be lost and sent again. Four rules follow:

- A request that comes twice is sampled once: its id is made of the session's and of the client's number.
- An answer stays here for a while after it was sent, since it may not have arrived.
- Who does not ask for so long has gone; then the request is cancelled, and the engine has its memory back.
- An unknown id is answered with 410; the SDK then sends the whole request again. So a server that was
  killed and started again answers all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from tinker_local.errors import (
    APIStatusError,
    InternalServerError,
    RateLimitError,
    RequestFailedError,
    TinkerError,
)
from tinker_local.futures import when_done
from tinker_local.serve.mailbox import Mailbox
from tinker_local.serve.tinker_api.ids import client_of, sequence_ids
from tinker_local.serve.tinker_api.protobuf import encode_response
from tinker_local.types import SampleResponse

Start = Callable[[], Awaitable[Future[SampleResponse]]]

LOADING = "loading the model"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things are kept, in seconds, and how much of them.

    Attributes:
        poll: until a long poll is answered 408; the SDK gives up after 45.
        first_poll: the same for the first poll that has news of the queue.
        replica: beyond such a wait, until a call that another replica answers is given up.
        abandoned: without a poll, until an unfinished request is cancelled.
        delivered: an answer is kept after it was sent.
        undelivered: an answer waits for being asked for.
        bytes: of all answers that are kept; the oldest go first.
        requests: most unfinished requests.
        loading_bytes: of requests that wait for their model.
    """

    poll: float = 25.0
    first_poll: float = 0.5
    replica: float = 10.0
    abandoned: float = 120.0
    delivered: float = 300.0
    undelivered: float = 900.0
    bytes: int = 2**29
    requests: int = 2**16
    loading_bytes: int = 2**28


@dataclass(slots=True, eq=False)
class Entry:
    """A request, and its answer or its error once it is done.

    Attributes:
        id: the request's.
        sequence_ids: one for each sequence that it samples.
        n_bytes: of the request while it waits for its model, then of the answer.
        future: the engine's; None while the model is loading.
        answer: the protobuf message.
        error: what went wrong, and whose fault it is: "user", "server" or "unknown".
        number: counts the finished requests up; 0 before.
    """

    id: str
    sequence_ids: list[str]
    n_bytes: int = 0
    future: Future[SampleResponse] | None = None
    loading: asyncio.Task[None] | None = None
    answer: bytes | None = None
    error: tuple[str, str] | None = None
    number: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)
    n_waiting: int = 0
    seen_at: float = field(default_factory=time.monotonic)
    was_delivered: bool = False

    def seconds_unseen(self) -> float:
        """Seconds since somebody asked for this request, or since it was done."""
        return 0.0 if self.n_waiting else time.monotonic() - self.seen_at


class Futures:
    """The table of requests; used on its event loop only."""

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._loop = asyncio.get_running_loop()
        self._mailbox = Mailbox(self._loop)
        self._entries: dict[str, Entry] = {}
        self._finished: dict[tuple[str, int], dict[int, Entry]] = {}  # by client and number
        self._polled: dict[tuple[str, int], float] = {}  # clients that poll for all their requests
        self._told: dict[tuple[str, int], str] = {}  # to clients, of the queue
        self._news = asyncio.Event()
        self._last_number = 0
        self._n_unfinished = self._n_loading_bytes = self._n_answer_bytes = 0

    def find(self, request_id: str) -> Entry | None:
        """Return a request; None if it is not known, or no longer."""
        return self._entries.get(request_id)

    def add(self, request_id: str, num_samples: int, future: Future[SampleResponse]) -> Entry:
        """Note a request that is in the engine."""
        entry = self._note(request_id, num_samples)
        self._watch(entry, future)
        return entry

    def add_loading(self, request_id: str, num_samples: int, n_bytes: int, start: Start) -> Entry:
        """Note a request whose model is not open yet.

        Args:
            request_id: its id.
            num_samples: how many sequences it samples.
            n_bytes: what it takes while it waits.
            start: opens the model and submits the request.

        Raises:
            RateLimitError: too much waits.
        """
        if self._n_loading_bytes + n_bytes > self.patience.loading_bytes:
            raise RateLimitError("too many requests wait for a model to be loaded; ask again")
        entry = self._note(request_id, num_samples)
        entry.n_bytes = n_bytes
        self._n_loading_bytes += n_bytes
        entry.loading = self._loop.create_task(self._load(entry, start))
        return entry

    def check_room(self) -> None:
        """Refuse a request where too many are unfinished.

        Raises:
            RateLimitError: so it is.
        """
        if self._n_unfinished >= self.patience.requests:
            raise RateLimitError(f"{self._n_unfinished} requests are unfinished; ask again")

    async def wait(self, entry: Entry, queue_state: str | None) -> bool:
        """Wait until a request is done, at most as long as a poll lasts; return whether it is.

        Args:
            entry: the request.
            queue_state: that of the queue where requests wait. A client that was told another one before
                hears of it soon, by one of its polls.
        """
        client = client_of(entry.id)
        is_news = queue_state is not None and self._told.get(client) != queue_state
        if queue_state is not None:
            self._told[client] = queue_state
        entry.n_waiting += 1
        try:
            async with asyncio.timeout(self.patience.first_poll if is_news else self.patience.poll):
                await entry.done.wait()
        except TimeoutError:
            pass
        finally:
            entry.n_waiting -= 1
            entry.seen_at = time.monotonic()
        return entry.done.is_set()

    async def wait_for_any(self, client: tuple[str, int], cursor: int, seconds: float) -> list[Entry]:
        """Return the requests of a client that were done after ``cursor``; wait for the first."""
        deadline = self._loop.time() + min(seconds, self.patience.poll)
        while True:
            self._polled[client] = time.monotonic()
            found = [entry for n, entry in self._finished.get(client, {}).items() if n > cursor]
            left = deadline - self._loop.time()
            if found or left <= 0:
                return sorted(found, key=lambda entry: entry.number)
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._news.wait()

    def cancel(self, request_id: str) -> None:
        """Stop a request; who still asks for it is told."""
        if (entry := self._entries.get(request_id)) is None or entry.done.is_set():
            return
        self._stop(entry)
        self._finish(entry, None, ("the request was cancelled", "user"))

    def forget(self, request_ids: Iterable[str]) -> None:
        """Drop the answers that clients have."""
        for request_id in request_ids:
            if (entry := self._entries.get(request_id)) is not None and entry.done.is_set():
                self._drop(entry)

    def sweep(self) -> None:
        """Cancel what nobody waits for, and drop answers that are old or too many."""
        patience = self.patience
        for entry in list(self._entries.values()):
            unseen = entry.seconds_unseen()
            if not entry.done.is_set():
                if min(unseen, self._seconds_unpolled(entry)) > patience.abandoned:
                    logger.info("nobody asks for %s any more", entry.id)
                    self._stop(entry)
                    self._n_unfinished -= 1
                    self._drop(entry)
            elif unseen > (patience.delivered if entry.was_delivered else patience.undelivered):
                self._drop(entry)
        limit = time.monotonic() - patience.undelivered
        self._polled = {client: at for client, at in self._polled.items() if at > limit}
        clients = {client_of(id) for id in self._entries}
        self._told = {client: state for client, state in self._told.items() if client in clients}

    async def sweep_forever(self) -> None:
        """Sweep from time to time."""
        while True:
            await asyncio.sleep(min(5.0, self.patience.abandoned / 4, self.patience.delivered / 4))
            self.sweep()

    def close(self) -> None:
        """Cancel everything that is unfinished."""
        for entry in self._entries.values():
            if not entry.done.is_set():
                self._stop(entry)

    def __len__(self) -> int:
        return len(self._entries)

    # -- one request ----------------------------------------------------------------------------

    def _note(self, request_id: str, num_samples: int) -> Entry:
        entry = Entry(request_id, sequence_ids(request_id, num_samples))
        self._entries[request_id] = entry
        self._n_unfinished += 1
        return entry

    def _watch(self, entry: Entry, future: Future[SampleResponse]) -> None:
        entry.future = future
        when_done(future, partial(self._resolved, entry))

    async def _load(self, entry: Entry, start: Start) -> None:
        """Submit a request once its model is open; where the queue is full, later."""
        n_bytes = entry.n_bytes
        try:
            while True:
                try:
                    self._watch(entry, await start())
                    return
                except RateLimitError:
                    await asyncio.sleep(0.5)
        except Exception as error:
            self._finish(entry, None, _described(error))
        finally:
            self._n_loading_bytes -= n_bytes

    def _resolved(self, entry: Entry, future: Future[SampleResponse]) -> None:
        """Take the answer, in the thread that has it; encoding a long one would hold up the event loop."""
        if future.cancelled():
            return
        answer, failure = None, future.exception()
        if failure is None:
            try:
                answer = encode_response(future.result())
            except Exception as error:
                failure = error
        self._mailbox.put(self._finish, entry, answer, None if failure is None else _described(failure))

    def _finish(self, entry: Entry, answer: bytes | None, error: tuple[str, str] | None) -> None:
        if entry.done.is_set() or self._entries.get(entry.id) is not entry:
            return
        self._last_number = max(self._last_number + 1, time.time_ns() // 1000)  # grows over restarts, too
        entry.answer, entry.error, entry.number = answer, error, self._last_number
        entry.future = entry.loading = None
        entry.n_bytes = len(answer or b"")
        entry.seen_at = time.monotonic()
        entry.done.set()
        self._n_unfinished -= 1
        self._n_answer_bytes += entry.n_bytes
        self._finished.setdefault(client_of(entry.id), {})[entry.number] = entry
        self._news.set()
        self._news.clear()
        if self._n_answer_bytes > self.patience.bytes:
            self._drop_oldest(keep=entry)

    def _drop_oldest(self, keep: Entry) -> None:
        """Keep the answers within their limit: those go first that were sent."""
        done = [entry for entry in self._entries.values() if entry.done.is_set() and entry is not keep]
        for entry in sorted(done, key=lambda entry: (not entry.was_delivered, entry.number)):
            if self._n_answer_bytes <= self.patience.bytes // 2:
                return
            self._drop(entry)

    def _stop(self, entry: Entry) -> None:
        if entry.loading is not None:
            entry.loading.cancel()
        if entry.future is not None:
            entry.future.cancel()

    def _drop(self, entry: Entry) -> None:
        self._entries.pop(entry.id, None)
        if not entry.done.is_set():
            return
        self._n_answer_bytes -= entry.n_bytes
        client = client_of(entry.id)
        of_client = self._finished.get(client, {})
        of_client.pop(entry.number, None)
        if not of_client:
            self._finished.pop(client, None)

    def _seconds_unpolled(self, entry: Entry) -> float:
        polled = self._polled.get(client_of(entry.id))
        return float("inf") if polled is None else time.monotonic() - polled


def _described(error: BaseException) -> tuple[str, str]:
    """Return what clients are told of a failure, and whose fault it is."""
    if isinstance(error, RequestFailedError):
        return error.message, error.category.value
    if isinstance(error, TinkerError):
        is_ours = isinstance(error, InternalServerError) or not isinstance(error, APIStatusError)
        return str(error), "server" if is_ours else "user"
    logger.error("a request failed", exc_info=error)
    return f"tinker-local failed: {type(error).__name__}: {error}", "server"


__all__ = ["LOADING", "Entry", "Futures", "Patience"]
