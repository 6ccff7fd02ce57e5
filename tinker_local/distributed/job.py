"""ClusterJob: a file of requests, answered on a Ray cluster.

The input's windows go through Ray Data's pipeline:

1. a task reads a window and sorts its lines, on this machine if the file is here only;
2. an actor answers a block of lines: each has the model loaded, and there are as many as the cluster holds;
3. this process writes the answers in the input's order, or keeps them on disk until their turn.

Ray starts tasks and actors again that died, on other nodes if need be. Seeds come from the lines, so an
answer made again is the same. A job that was killed goes on where it stopped: lines of the output, and
those kept ahead, are not asked again.
"""

from __future__ import annotations

import inspect
import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinker_local.batch import OutputFile, SampleTask, ScoreTask, Summary
from tinker_local.batch.item import Item, number_in
from tinker_local.batch.lines import Line
from tinker_local.batch.progress import Progress
from tinker_local.distributed.answers import LineAnswers
from tinker_local.distributed.answers_ahead import AnswersAhead
from tinker_local.distributed.cluster import ActorSize, NodeWatch, connected, on_this_node, serve_files
from tinker_local.distributed.input import Input, Window, cut, sorted_lines
from tinker_local.distributed.model_files import ModelFiles
from tinker_local.errors import RequestFailedError, TinkerError
from tinker_local.weights import Weights

ROWS = 256
"""Lines of a block, which an actor answers in one call: four times what its engine runs at once."""
_LEAST_BLOCK, _MOST_BLOCK = 1 << 12, 1 << 24  # bytes
_AT_ONCE = 2  # blocks that an actor works on at a time: one ends while the next begins
_READERS = 2  # windows that are read at a time


@dataclass(frozen=True)
class ClusterJob:
    """A file of requests, the model for it, and the cluster that runs it.

    Attributes:
        source: the requests.
        task: sampling or scoring; its seed is that of the output.
        weights: the model, and perhaps an adapter, as this machine has them.
        options: of ``ServiceClient``, for each actor; ``n_threads`` and ``max_memory_mb`` size the actors.
        address: of the cluster; see ``connected``.
        num_cpus: CPUs of an actor; None: those of the smallest node.
        num_gpus: GPUs of an actor.
    """

    source: Input
    task: SampleTask | ScoreTask
    weights: Weights
    options: Mapping[str, Any] = field(default_factory=dict)
    address: str = "auto"
    num_cpus: int | None = None
    num_gpus: float = 0


def run_job(job: ClusterJob, output: OutputFile, progress: Progress) -> Summary:
    """Answer all lines that earlier runs did not answer, on a cluster.

    Raises:
        BadRequestError: Ray is not installed, the output belongs to another input, or the cluster is too
            small.
        APIConnectionError: there is no cluster.
        RequestFailedError: the cluster could not do it.
    """
    with ExitStack() as stack:
        rest = _Rest(job, output)
        stack.callback(rest.ahead.close)
        progress.start(rest.start)
        stack.callback(progress.stop)
        n_before, n_failed = output.n_done + len(rest.ahead), output.n_failed + rest.n_failed
        rest.write()
        if n_left := sum(map(len, rest.windows)):
            ray = stack.enter_context(connected(job.address))
            n_bytes = (job.source.size - rest.start) / n_left  # of one line
            for answers, n_tokens, n_failed_now in _answers(ray, job, rest.windows):
                n_failed += n_failed_now
                n_lines = rest.take(answers)
                progress.n_lines += n_lines - 1
                progress.count(int(rest.start + n_bytes * (progress.n_lines + 1)), n_tokens)
                progress.show()
        output.finish(rest.last)
    return Summary(n_before + progress.n_lines, n_failed, n_before, progress.n_tokens, progress.seconds)


class _Rest:
    """The lines that the output lacks: their windows, and the answers that came before their turn.

    Attributes:
        start: offset in the input behind the lines that the output has.
        last: number of the input's last line.
        windows: all that follow ``start``.
        ahead: answers that wait for earlier ones.
        n_failed: how many of those that an earlier run left have an error.
    """

    def __init__(self, job: ClusterJob, output: OutputFile) -> None:
        self._task, self._output = job.task, output
        self.start = self.last = self.n_failed = 0
        lines = job.source.lines()
        output.resume(self._items(lines))
        self.ahead = AnswersAhead(output.path)
        before = self.last
        self.windows = list(cut(self._compared(lines), self.start, before, self.ahead))
        self.ahead.keep(lambda number: before < number <= self.last)
        self._order = (number for window in self.windows for number in window.numbers())
        self._next = next(self._order, 0)

    def _items(self, lines: Iterator[Line]) -> Iterator[Item]:
        for line in lines:
            self.start, self.last = line.end, line.number
            yield self._task.item(line)

    def _compared(self, lines: Iterator[Line]) -> Iterator[Line]:
        """Yield lines; forget answers ahead that are not of this input."""
        for line in lines:
            self.last = line.number
            if line.number in self.ahead:
                item, answer = self._task.item(line), self.ahead[line.number]
                if item.is_begun_by(answer):
                    self.n_failed += item.is_failed_in(answer)
                else:
                    self.ahead.pop(line.number)
            yield line

    def take(self, answers: bytes) -> int:
        """Write the answers whose turn it is, keep the others; return how many there were."""
        lines = answers.splitlines(keepends=True)
        for line in lines:
            number = number_in(line)
            assert number is not None
            self.ahead.add(number, line)
        self.write()
        return len(lines)

    def write(self) -> None:
        """Write the answers whose turn it is."""
        while self._next in self.ahead:
            self._output.write(self.ahead.pop(self._next))
            self._next = next(self._order, 0)
        self.ahead.flush()


def _answers(ray: Any, job: ClusterJob, windows: Sequence[Window]) -> Iterator[tuple[bytes, int, int]]:
    """Yield the answers of one block after the other: lines, number of tokens, number of errors.

    Raises:
        TinkerError: the model cannot be opened on a node, or the cluster failed.
    """
    memory = job.options.get("max_memory_mb")
    size = ActorSize.fitting(ray.nodes(), job.num_cpus, job.num_gpus, memory and memory << 20)
    files = ModelFiles.of(job.weights)
    driver = serve_files(ray, files.files)
    task = replace(job.task, image_at=driver.image) if isinstance(job.task, SampleTask) else job.task
    given = {
        name: value for name, value in job.options.items() if value is not None and name != "models_dir"
    }
    options = {**given, "n_threads": size.num_cpus, "max_memory_mb": size.memory >> 20}
    wanted = [window for window in windows if len(window)]
    n_bytes = sum(window.n_bytes for window in wanted) // sum(map(len, wanted))
    _configure(ray, min(_MOST_BLOCK, max(_LEAST_BLOCK, ROWS * n_bytes)))
    dataset = ray.data.from_items(
        [{"window": pickle.dumps(window)} for window in wanted], override_num_blocks=len(wanted)
    )
    dataset = dataset.map_batches(
        _read,
        fn_kwargs={"source": job.source},
        batch_size=1,
        num_cpus=0,
        **_readers(ray, min(_READERS, len(wanted))),
        **(on_this_node(ray) if job.source.is_local else {}),
    )
    dataset = dataset.map_batches(
        LineAnswers,
        fn_constructor_args=(task, files, driver.piece, options),
        batch_size=ROWS,
        num_cpus=size.num_cpus,
        num_gpus=size.num_gpus or None,
        memory=size.memory,
        compute=_pool(ray, size),
    )
    watch = NodeWatch(ray)
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="numpy"):
            watch.look()
            yield from zip(
                batch["answers"], map(int, batch["n_tokens"]), map(int, batch["n_failed"]), strict=True
            )
    except ray.exceptions.RayError as error:
        raise _told(error) from error
    watch.look(0)


def _read(batch: Mapping[str, Any], source: Input) -> Iterator[dict[str, Any]]:
    """Yield the lines of one window, a block at a time."""
    lines = sorted_lines(source, pickle.loads(batch["window"][0]))
    for start in range(0, len(lines), ROWS):
        block = lines[start : start + ROWS]
        data = np.empty(len(block), object)
        data[:] = [line.data for line in block]
        yield {
            "line": np.array([line.number for line in block]),
            "data": data,
            "is_cut": np.array([line.is_cut for line in block]),
        }


def _configure(ray: Any, block: int) -> None:
    """Have Ray Data make small blocks: each is the unit that is lost with an actor, and done again."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size, context.target_min_block_size = block, 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def _readers(ray: Any, count: int) -> dict[str, Any]:
    """Return the arguments of ``map_batches`` for so many tasks at a time; Ray 2.47 has another name."""
    strategy = getattr(ray.data, "TaskPoolStrategy", None)
    return {"compute": strategy(count)} if strategy else {"concurrency": count}


def _pool(ray: Any, size: ActorSize) -> Any:
    """Return the pool of actors: as many as fit now, and more when the cluster grows."""
    strategy = ray.data.ActorPoolStrategy
    known = inspect.signature(strategy).parameters
    wanted = {
        "min_size": 1,
        "initial_size": size.count,
        "max_tasks_in_flight_per_actor": 2 * _AT_ONCE,
        "max_concurrent_calls_per_actor": _AT_ONCE,
        "enable_true_multi_threading": True,
    }
    return strategy(**{name: value for name, value in wanted.items() if name in known})


def _told(error: Exception) -> Exception:
    """Return our own error, if it is the cause of one of Ray's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TinkerError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return RequestFailedError(f"the cluster could not answer all lines: {error}")
