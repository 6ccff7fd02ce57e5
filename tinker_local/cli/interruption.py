"""Ctrl-C, SIGTERM and SIGHUP end a command: they raise, so everything is closed and nothing is left behind.

Python runs a signal's handler between two steps of the main thread. While that thread is in llama.cpp,
another one notices the signal (``signal.set_wakeup_fd``), and aborts what llama.cpp loads or computes.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

import typer

from tinker_local.llama.aborting import abort_all

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_PATIENCE = 0.2
"""Seconds until llama.cpp is aborted: usually the main thread runs the handler at once."""
_SOON = 0.01
"""Seconds until a signal is sent again: the callback that it came in has ended by then."""
_MOST = 5.0
"""Seconds until the process ends without the main thread, such as one that waits for a disk."""


class Interruption(KeyboardInterrupt):
    """A signal arrived; ``number`` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def reported_interruptions() -> Iterator[None]:
    """Report an interruption as one line on standard error; exit with status 128 + the signal's number.

    A signal that the process was started to ignore (``nohup``) stays ignored.
    """
    try:
        with _raised_signals():
            yield
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        said = "interrupted" if number == signal.SIGINT else f"ended by {error}"
        with suppress(OSError):  # the terminal may be gone
            typer.echo(said, err=True)
        raise typer.Exit(128 + number) from None


@contextmanager
def _raised_signals() -> Iterator[None]:
    """Have each signal raise an ``Interruption`` in the main thread, soon."""
    handled = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        handled.set()
        raise Interruption(number)

    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(_watching(handled))
            stack.enter_context(_sent_again(handled))
            for number in _NUMBERS:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    signal.signal(number, handle)
                    stack.callback(signal.signal, number, before)
        yield


@contextmanager
def _sent_again(handled: threading.Event) -> Iterator[None]:
    """Send a signal again whose exception came to nothing: in a callback of C or a finalizer."""
    before = sys.unraisablehook

    def look(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, Interruption):
            before(unraisable)
            return
        handled.clear()
        threading.Timer(_SOON, os.kill, [os.getpid(), unraisable.exc_value.number]).start()

    sys.unraisablehook = look
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def _watching(handled: threading.Event) -> Iterator[None]:
    """See to it that a signal's handler runs soon: ``handled`` is set by it."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    with reader, writer:
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        watch = threading.Thread(
            target=_watch, args=(reader, handled), daemon=True, name="tinker-local-signals"
        )
        watch.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            handled.set()
            writer.close()
            watch.join()


def _watch(reader: socket.socket, handled: threading.Event) -> None:
    """Abort what llama.cpp does when a signal waits for the main thread; in the end leave without it."""
    while data := reader.recv(1):
        if data[0] not in _NUMBERS or handled.wait(_PATIENCE):
            continue
        abort_all()
        if not handled.wait(_MOST):
            os._exit(128 + data[0])
