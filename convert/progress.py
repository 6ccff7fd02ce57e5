"""A progress bar on standard error, shown if that is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnProgress = Callable[[int, int], None]
"""A function that is called now and then with the bytes done and the bytes in all."""

_REFRESH = 0.1  # seconds


@contextmanager
def shown_progress(description: str) -> Iterator[OnProgress | None]:
    """Show a bar with bytes, speed and time left while the block runs.

    Yields:
        What takes the bytes done and those in all; None where there is no terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=None)
        shown = 0.0

        def show(done: int, total: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown > _REFRESH or done >= total:
                shown = now
                bar.update(task, completed=done, total=total)

        yield show
