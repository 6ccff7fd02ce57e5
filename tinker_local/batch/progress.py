"""Progress of a batch run on standard error: a bar on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import rich.progress

_REFRESH = 0.2  # seconds between redraws of the bar
_PERIOD = 10.0  # seconds between lines


class Progress(Protocol):
    """Is told of each line that was written.

    Attributes:
        n_lines: lines so far.
        n_tokens: their tokens, sampled or scored.
        seconds: time since ``start``.
    """

    n_lines: int
    n_tokens: int

    @property
    def seconds(self) -> float:
        """Time since ``start``."""

    def start(self, done: int) -> None:
        """Start the clock; earlier runs did ``done`` bytes of the input."""

    def count(self, done: int, n_tokens: int) -> None:
        """Count a line that was written; ``done`` bytes of the input are finished."""

    def show(self) -> None:
        """Show how far it came, if it is time to."""

    def stop(self) -> None:
        """Show no more."""


class BatchProgress:
    """Shows finished lines, tokens per second and the time left.

    Args:
        description: label of the bar.
        n_bytes: size of the input; None where it is not known. The share that is done is measured in
            bytes, since nobody knows the number of lines before the end.
    """

    def __init__(self, description: str, n_bytes: int | None) -> None:
        self.n_lines = self.n_tokens = 0
        self._n_bytes = n_bytes
        self._done = self._before = 0  # bytes of the input: done so far; done by earlier runs
        self._begun = self._shown = time.monotonic()
        self._bar = _bar(description, n_bytes) if sys.stderr.isatty() else None

    def start(self, done: int) -> None:
        """Start the clock; earlier runs did ``done`` bytes of the input."""
        self._done = self._before = done
        self._begun = self._shown = time.monotonic()
        if self._bar:
            self._bar.start()

    def count(self, done: int, n_tokens: int) -> None:
        """Count a line that was written; ``done`` bytes of the input are finished."""
        self.n_lines += 1
        self.n_tokens += n_tokens
        self._done = done

    def show(self) -> None:
        """Refresh the bar, or print a line, if it is time to."""
        now = time.monotonic()
        if now - self._shown < (_REFRESH if self._bar else _PERIOD):
            return
        self._shown = now
        if self._bar:
            self._bar.update(
                self._bar.task_ids[0],
                completed=self._done,
                lines=f"{self.n_lines:,} lines",
                rate=f"{self.rate:,.0f} tokens/s",
                left=self._time_left() or "",
            )
            return
        said = [f"{self.n_lines:,} lines", f"{self.rate:,.0f} tokens/s", self._time_left()]
        print(", ".join(filter(None, said)), file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Time since ``start``."""
        return time.monotonic() - self._begun

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.n_tokens / max(self.seconds, 1e-3)

    def _time_left(self) -> str | None:
        done = self._done - self._before
        if not self._n_bytes or not done:
            return None
        seconds = self.seconds * max(0, self._n_bytes - self._done) / done
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left"


def _bar(description: str, n_bytes: int | None) -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    fields = ("{task.fields[lines]}", "{task.fields[rate]}")
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *map(TextColumn, fields),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        refresh_per_second=1 / _REFRESH,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    bar.add_task(description, total=n_bytes, lines="", rate="", left="")
    return bar
