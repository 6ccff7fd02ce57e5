"""BatchRun: a window of requests in flight, answers written in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from tinker_local.batch.item import Item
from tinker_local.batch.lines import Line
from tinker_local.batch.output import Output
from tinker_local.batch.progress import Progress
from tinker_local.batch.shard import Shard
from tinker_local.batch.task import Task
from tinker_local.errors import APIError, BadRequestError, NotFoundError
from tinker_local.futures import APIFuture, when_done
from tinker_local.sampling_client import SamplingClient
from tinker_local.types import ModelInput, SampleResponse

_IN_FLIGHT = 128
"""Most requests in flight: twice the 64 samples that the engine runs at a time."""
_MOST_WAITING = 1 << 26
"""Bytes of answers waiting for an earlier answer; with more than this, no further lines are read."""
_REFRESH = 0.1  # seconds
_ALL = Shard()


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of a finished run.

    Attributes:
        n_lines: lines of the output.
        n_failed: how many of them have an error.
        n_before: how many of them earlier runs wrote.
        n_tokens: tokens sampled or scored by this run.
        seconds: duration of this run.
    """

    n_lines: int
    n_failed: int
    n_before: int
    n_tokens: int
    seconds: float


@dataclass(slots=True)
class _Pending:
    """An item between reading and writing: in flight (``future``), then waiting its turn (``line``)."""

    item: Item
    prompt: ModelInput
    future: APIFuture[SampleResponse] | None = None
    line: bytes | None = None
    n_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _End:
    """End of the input; ``error`` says why it could not be read further."""

    error: Exception | None


class BatchRun:
    """Answers each line of an input by a line of the output, in order.

    Three parties share the work, and meet in one queue of events:

    - the reader thread takes a slot for each line, then puts an ``Item`` (``_read``);
    - the engine's threads put back a ``_Pending`` when its future is done (``_submit``);
    - the calling thread takes the events: it submits items, turns responses into lines and writes those
      whose turn it is (``_collect``). Only this thread touches ``_pending`` and the output.

    Memory does not grow with the input: there are ``_IN_FLIGHT`` slots, and a slot is given back only while
    few finished answers wait for an earlier one.

    Args:
        client: runs the requests.
        task: sampling or scoring.
        output: receives the lines.
        progress: is told of each line that was written.
    """

    def __init__(self, client: SamplingClient, task: Task, output: Output, progress: Progress) -> None:
        self._client, self._task, self._output, self._progress = client, task, output, progress
        self._tokenizer = client.get_tokenizer()
        self._events: SimpleQueue[Item | _Pending | _End] = SimpleQueue()
        self._slots = threading.Semaphore(_IN_FLIGHT)
        self._pending: deque[_Pending] = deque()  # submitted and not written, in order of the input
        self._n_waiting = 0  # bytes of answers that wait for an earlier one
        self._n_free = 0  # slots that are free again, but not given back to the reader yet
        self._stopped = False
        self._n_failed = 0

    def run(self, lines: Iterable[Line], shard: Shard = _ALL) -> Summary:
        """Answer all lines of a shard that earlier runs did not answer.

        Args:
            lines: the input, with ascending numbers.
            shard: the lines to answer; the others are skipped.

        Raises:
            BadRequestError: the output belongs to another input, or input or output fails.
            RequestFailedError: the client was closed.
        """
        done = last = 0  # of the input: offset just behind the last item; number of the last line

        def items() -> Iterator[Item]:
            nonlocal done, last
            for line in lines:
                last = line.number
                if shard.takes(last):
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
            self._output.finish(last)
        finally:
            self._stop()
        progress = self._progress
        n_failed += self._n_failed
        return Summary(n_before + progress.n_lines, n_failed, n_before, progress.n_tokens, progress.seconds)

    def _read(self, items: Iterator[Item]) -> None:
        """Put one item for each free slot; runs on its own thread, since the input may be a slow pipe."""
        error: Exception | None = None
        try:
            for item in items:
                self._slots.acquire()
                if self._stopped:
                    return
                self._events.put(item)
        except Exception as raised:
            error = raised
        self._events.put(_End(error))

    def _collect(self) -> None:
        """Handle events until the input has ended and every answer is written."""
        is_read = False
        while not is_read or self._pending:
            try:
                event = self._events.get(timeout=_REFRESH)
            except Empty:
                self._progress.show()
                continue
            if isinstance(event, Item):
                self._submit(event)
            elif isinstance(event, _Pending):
                self._finish(event)
            elif event.error:
                raise _unreadable(event.error) from event.error
            else:
                is_read = True
            self._write()
            self._progress.show()

    def _submit(self, item: Item) -> None:
        """Send an item's request; an item that cannot be answered gets its error line at once."""
        pending = _Pending(item, ModelInput.empty())
        self._pending.append(pending)
        problem = item.problem
        if problem is None:
            try:
                pending.prompt = self._task.prompt(self._tokenizer, item)
                pending.future = self._task.submit(self._client, item, pending.prompt)
            except (BadRequestError, NotFoundError) as error:
                problem = str(error)
        if pending.future is None:
            self._hold(pending, item.error_line(problem or ""))
            self._n_failed += 1
        else:
            when_done(pending.future, lambda _: self._events.put(pending))

    def _finish(self, pending: _Pending) -> None:
        """Turn a finished request into its line."""
        future: Future[SampleResponse] | None = pending.future
        assert future is not None
        try:
            response = future.result()
            answer = self._task.answer(self._tokenizer, pending.item, pending.prompt, response)
            pending.n_tokens = self._task.n_tokens(response)
            line = pending.item.answer_line(answer)
        except (APIError, ValueError) as error:  # ValueError: a number that JSON cannot express
            self._n_failed += 1
            line = pending.item.error_line(str(error))
        pending.future, pending.prompt = None, ModelInput.empty()
        self._hold(pending, line)

    def _hold(self, pending: _Pending, line: bytes) -> None:
        """Keep a line until all earlier ones are written."""
        pending.line = line
        self._n_waiting += len(line)
        self._n_free += 1

    def _write(self) -> None:
        """Write the lines whose turn it is, then give back slots."""
        while self._pending and (line := self._pending[0].line) is not None:
            self._output.write(line)
            pending = self._pending.popleft()
            self._n_waiting -= len(line)
            self._progress.count(pending.item.end, pending.n_tokens)
        if self._n_free and self._n_waiting < _MOST_WAITING:
            self._slots.release(self._n_free)
            self._n_free = 0

    def _stop(self) -> None:
        """Cancel what is unfinished and let the reader thread end."""
        self._stopped = True
        self._slots.release()
        # Youngest first: a running request that is cancelled would let a waiting one start.
        for pending in reversed(self._pending):
            if pending.future is not None:
                pending.future.cancel()
        self._progress.stop()


def _unreadable(error: Exception) -> Exception:
    if isinstance(error, OSError):
        return BadRequestError(f"the input cannot be read: {error.strerror or error}")
    return error
