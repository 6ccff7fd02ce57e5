"""Batch: a window of requests in flight, and their answers in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from tinker_local.batch.item import Item
from tinker_local.batch.lines import Source, read_lines
from tinker_local.batch.output import Output
from tinker_local.batch.progress import Progress
from tinker_local.batch.task import Task
from tinker_local.errors import APIError, BadRequestError
from tinker_local.futures import APIFuture
from tinker_local.sampling_client import SamplingClient
from tinker_local.types import SampleResponse

_IN_FLIGHT = 128
"""Requests that are asked for and not answered: the engine runs up to 64 samples at a time."""
_HELD = 1 << 26
"""Bytes of answers that may wait for earlier ones before no more is asked for."""
_REFRESH = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    Attributes:
        n_lines: lines of the output.
        n_failed: of them, those with an error.
        n_before: of them, those that earlier runs wrote.
        n_tokens: tokens that this run sampled or scored.
        seconds: that it took.
    """

    n_lines: int
    n_failed: int
    n_before: int
    n_tokens: int
    seconds: float


@dataclass(slots=True)
class _Asked:
    """A line that is being computed, and then one that is to be written."""

    item: Item
    tokens: list[int]
    future: APIFuture[SampleResponse] | None = None
    line: bytes | None = None
    n_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _End:
    """The input has ended; ``error`` says why it could not be read further."""

    error: Exception | None


class Batch:
    """Answers each line of an input by one of an output.

    Memory does not grow with their number: lines are read when there is room for them.

    Args:
        client: whom to ask.
        task: what to ask.
        output: where answers go.
        progress: is told.
    """

    def __init__(self, client: SamplingClient, task: Task, output: Output, progress: Progress) -> None:
        self._client, self._task, self._output, self._progress = client, task, output, progress
        self._tokenizer = client.get_tokenizer()
        self._events: SimpleQueue[Item | _Asked | _End] = SimpleQueue()
        self._room = threading.Semaphore(_IN_FLIGHT)
        self._order: deque[_Asked] = deque()  # what is asked for and not written
        self._n_held = self._n_taken = (
            0  # bytes that wait; places in flight that are free, but not given back
        )
        self._stopped = False
        self._n_failed = 0

    def run(self, source: Source) -> Summary:
        """Answer all lines.

        Raises:
            BadRequestError: the output is that of another input, or one of them cannot be read or written.
            RequestFailedError: the client was closed.
        """
        done = 0

        def items() -> Iterator[Item]:
            nonlocal done
            for line in read_lines(source):
                item = self._task.item(line)
                done = item.end
                yield item

        remaining = items()
        try:
            self._output.resume(remaining)
        except OSError as error:
            raise _unreadable(error) from error
        n_before, n_failed = self._output.n_done, self._output.n_failed
        self._progress.start(done)
        threading.Thread(target=self._read, args=(remaining,), daemon=True).start()
        try:
            self._collect()
        finally:
            self._stop()
        progress = self._progress
        n_failed += self._n_failed
        return Summary(n_before + progress.n_lines, n_failed, n_before, progress.n_tokens, progress.seconds)

    def _read(self, items: Iterator[Item]) -> None:
        """Hand out items as there is room; on a thread of its own, since an input may be slow to come."""
        error: Exception | None = None
        try:
            for item in items:
                self._room.acquire()
                if self._stopped:
                    return
                self._events.put(item)
        except Exception as raised:
            error = raised
        self._events.put(_End(error))

    def _collect(self) -> None:
        is_read = False
        while not is_read or self._order:
            try:
                event = self._events.get(timeout=_REFRESH)
            except Empty:
                self._progress.show()
                continue
            if isinstance(event, Item):
                self._ask(event)
            elif isinstance(event, _Asked):
                self._finish(event)
            elif event.error:
                raise _unreadable(event.error) from event.error
            else:
                is_read = True
            self._write()
            self._progress.show()

    def _ask(self, item: Item) -> None:
        asked = _Asked(item, [])
        self._order.append(asked)
        problem = item.problem
        if problem is None:
            try:
                asked.tokens = self._task.tokens(self._tokenizer, item)
                asked.future = self._task.submit(self._client, item, asked.tokens)
            except BadRequestError as error:
                problem = str(error)
        if asked.future is None:
            self._hold(asked, item.failed(problem or ""))
            self._n_failed += 1
        else:
            asked.future.add_done_callback(lambda _: self._events.put(asked))

    def _finish(self, asked: _Asked) -> None:
        future: Future[SampleResponse] | None = asked.future
        assert future is not None
        try:
            response = future.result()
            answer = self._task.answer(self._tokenizer, asked.item, asked.tokens, response)
            asked.n_tokens = self._task.n_tokens(response)
            line = asked.item.answered(answer)
        except (APIError, ValueError) as error:  # the latter: a number that JSON does not have
            self._n_failed += 1
            line = asked.item.failed(str(error))
        asked.future, asked.tokens = None, []
        self._hold(asked, line)

    def _hold(self, asked: _Asked, line: bytes) -> None:
        asked.line = line
        self._n_held += len(line)
        self._n_taken += 1

    def _write(self) -> None:
        """Write what is next in order, and make room for more."""
        while self._order and (line := self._order[0].line) is not None:
            self._output.write(line)
            asked = self._order.popleft()
            self._n_held -= len(line)
            self._progress.count(asked.item.end, asked.n_tokens)
        if self._n_taken and self._n_held < _HELD:
            self._room.release(self._n_taken)
            self._n_taken = 0

    def _stop(self) -> None:
        """Let go of what is not finished."""
        self._stopped = True
        self._room.release()
        for asked in reversed(self._order):  # those that run come last: nothing is started in between
            if asked.future is not None:
                asked.future.cancel()
        self._progress.stop()


def _unreadable(error: Exception) -> Exception:
    if isinstance(error, OSError):
        return BadRequestError(f"the input cannot be read: {error.strerror or error}")
    return error
