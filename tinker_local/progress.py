"""track: follows many futures with a progress bar."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import cache
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from tinker_local.futures import APIFuture, when_done
from tinker_local.types import SampleResponse

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

F = TypeVar("F", bound=Future[Any])

_REFRESH = 0.1  # seconds


def track(
    futures: Iterable[F], description: str = "Requests", *, disable: bool | None = None
) -> Iterator[F]:
    """Yield futures as they finish, with a progress bar on standard error.

    The bar shows how many are done, the time so far, the time left, and the tokens sampled or scored per
    second. Failed and cancelled futures are yielded like the others; a future given twice is yielded once.

    Ctrl-C while this waits cancels the unfinished futures and raises ``KeyboardInterrupt``. If the loop is
    left in another way, they go on.

    Args:
        futures: any ``concurrent.futures.Future``, those of a ``SamplingClient`` included. All are read
            before the first is yielded.
        description: the text before the bar.
        disable: True shows no bar; None shows one on a terminal and in a notebook.

    Yields:
        Each future once, when it is done.

    Raises:
        TypeError: an item of ``futures`` is not a ``concurrent.futures.Future``.
    """
    unfinished: dict[Future[Any], F] = {}
    finished: SimpleQueue[Future[Any]] = SimpleQueue()
    try:
        for future in futures:
            if not isinstance(future, Future):
                raise TypeError(
                    f"futures holds a {type(future).__name__}; track takes concurrent.futures.Future"
                )
            unfinished[future] = future
        for future in unfinished.values():
            when_done(future, finished.put)
        with _Bar(description, len(unfinished), finished.qsize(), disable) as bar:
            while unfinished:
                try:
                    done = unfinished.pop(finished.get(timeout=_REFRESH))
                except Empty:
                    bar.show()
                    continue
                bar.count(done)
                yield done
    except KeyboardInterrupt:
        for future in reversed(
            unfinished.values()
        ):  # those that run come last: nothing is started in between
            future.cancel()
        raise


class _Bar:
    """A progress bar that costs little for each future, since it is redrawn ten times a second at most.

    Args:
        n_before: futures done at the start; they do not count as speed.
    """

    def __init__(self, description: str, total: int, n_before: int, disable: bool | None) -> None:
        self._progress = None if disable else _progress(forced=disable is False)
        self._n_before = n_before
        self._n_done = self._n_tokens = 0
        self._start = self._shown = time.monotonic()
        if self._progress:
            self._task = self._progress.add_task(description, total=total, completed=n_before, rate="")

    def __enter__(self) -> _Bar:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self.show()
            self._progress.stop()

    def count(self, future: Future[Any]) -> None:
        """Take note of a finished future."""
        if self._progress is None:
            return
        self._n_done += 1
        if self._n_done > self._n_before:
            self._n_tokens += _n_tokens(future)
            if time.monotonic() - self._shown > _REFRESH:
                self.show()

    def show(self) -> None:
        """Bring the bar up to date."""
        self._shown = time.monotonic()
        if self._progress and self._n_done >= self._n_before:
            rate = self._n_tokens / max(self._shown - self._start, _REFRESH)
            shown = f"{rate:,.0f} tokens/s" if self._n_tokens else ""
            self._progress.update(self._task, completed=self._n_done, rate=shown)


def _n_tokens(future: Future[Any]) -> int:
    """Return how many tokens a request of ours sampled and scored."""
    if not isinstance(future, APIFuture) or future.cancelled() or future.exception():
        return 0
    result = future.result()
    if isinstance(result, list):  # of compute_logprobs
        return len(result)
    if not isinstance(result, SampleResponse):
        return 0
    scored = result.prompt_logprobs_np
    n_scored = 0 if scored is None else len(scored)
    return n_scored + sum(len(sequence.tokens) for sequence in result.sequences)


def _progress(forced: bool) -> Progress | None:
    """Return a bar for standard error; None where that is no terminal or notebook, unless ``forced``."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = _console()
    if not (forced or console.is_terminal or console.is_jupyter):
        return None
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=1 / _REFRESH,
        speed_estimate_period=math.inf,  # results come in waves, which may lie far apart
        redirect_stdout=_prints_to_terminal(),
    )


@cache
def _console() -> Console:
    # one for all bars, so that bars within bars do not write over each other
    from rich.console import Console

    return Console(stderr=True)


def _prints_to_terminal() -> bool:
    """Whether other prints go to the same terminal and must be kept off the bar."""
    return sys.stdout is not None and sys.stdout.isatty()


__all__ = ["track"]
