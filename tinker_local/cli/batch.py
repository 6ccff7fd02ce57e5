"""``--input`` and ``--output`` of ``tinker-local sample`` and ``logprobs``: files of requests."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, BinaryIO

import typer

from convert.files.parts import parts_of
from tinker_local.batch import Batch, OutputFile, SampleTask, ScoreTask, Stream, Summary
from tinker_local.batch.lines import Source
from tinker_local.batch.progress import Progress
from tinker_local.cli.parameters import ChosenModel
from tinker_local.errors import NotFoundError
from tinker_local.sampling_client import SamplingClient

_PANEL = "Many at once"
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="FILE",
        rich_help_panel=_PANEL,
        help='JSON lines, each with a "prompt", "messages" or "tokens"; - reads standard input.',
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="FILE",
        rich_help_panel=_PANEL,
        help="Where a JSON line is written for each line. If an interrupted run left it, this one goes on "
        "with it. Unset: standard output (-).",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", rich_help_panel=_PANEL, help="Begin the output again, whatever is there.")
]

_NUMERIC_OPTIONS = ("n_ctx", "kv_type", "flash_attn", "logprobs_mode", "batch_invariant")
"""Options that the numbers depend on; the others only change how fast they come."""
_BLOCK, _N_BLOCKS = 1 << 16, 64


def check_batch(given: object, input: str | None, output: str | None, force: bool, what: str) -> None:
    """Refuse options of files of requests without such a file, and one beside a single request.

    Raises:
        BadParameter: that is so.
    """
    if input is None and (output is not None or force):
        raise typer.BadParameter("--output and --force go with --input")
    if input is not None and given is not None:
        raise typer.BadParameter(f"give {what}, or --input with a file of many; not both")


def run_batch(
    model: ChosenModel,
    task: SampleTask | ScoreTask,
    input: str,
    output: str | None,
    *,
    seed: int | None = None,
    force: bool = False,
    as_json: bool = False,
) -> None:
    """Answer each line of a file; with ``as_json`` print a summary as one JSON object.

    Ends with status 1 if a line could not be answered, 130 and 143 where it was interrupted or ended.
    """
    with ExitStack() as stack:
        stack.enter_context(_ended_by_sigterm())
        source, n_bytes = _open_input(input, stack)
        target = None if output in (None, "-") else Path(output or "").expanduser()
        if target and input != "-" and target.exists() and target.samefile(input):
            raise typer.BadParameter(f"--input and --output are both {input}")
        client = model.open()
        sink: Stream | OutputFile
        if target is None or (target.exists() and not target.is_file()):
            sink = Stream(_open_stream(target, stack), seed)
        else:
            sink = OutputFile(target, _settings(client, model, task), seed, force=force)
        stack.callback(sink.close)
        if isinstance(task, SampleTask):
            task.seed = sink.seed
        progress = Progress("Sampling" if isinstance(task, SampleTask) else "Scoring", n_bytes)
        try:
            summary = Batch(client, task, sink, progress).run(source)
        except (KeyboardInterrupt, SystemExit):
            _say_interrupted(sink, progress)
            raise
    _report(summary, target if as_json else None)
    if summary.n_failed:
        raise typer.Exit(1)


def _open_input(name: str, stack: ExitStack) -> tuple[Source, int | None]:
    """Return what lines are read from, and its size if it is known."""
    if name == "-":
        stream = sys.stdin.buffer
        return getattr(stream, "raw", stream), None  # a thread that waits in it holds no lock
    path = Path(name).expanduser()
    try:
        file = stack.enter_context(path.open("rb", buffering=0))
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}") from None
    return file, os.fstat(file.fileno()).st_size or None


def _open_stream(path: Path | None, stack: ExitStack) -> BinaryIO:
    return sys.stdout.buffer if path is None else stack.enter_context(path.open("wb"))


def _settings(client: SamplingClient, model: ChosenModel, task: SampleTask | ScoreTask) -> dict[str, Any]:
    """Return what the lines depend on, besides the input."""
    weights, options = client.weights, client.options.model_dump(mode="json")
    adapter = {"adapter": _fingerprint(weights.adapter_path)} if weights.adapter_path else {}
    return {
        **task.settings,
        "model": _fingerprint(weights.path),
        **adapter,
        "lora_scale": model.lora_scale,
        **{name: options[name] for name in _NUMERIC_OPTIONS},
    }


def _fingerprint(path: Path) -> str:
    """Return a file's name and a hash of its size and of 64 blocks all over it (and its other parts)."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts_of(path):
        size = part.stat().st_size
        digest.update(size.to_bytes(8))
        with part.open("rb", buffering=0) as file:
            for number in range(_N_BLOCKS):
                file.seek(max(0, size - _BLOCK) * number // (_N_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return f"{path.name} {digest.hexdigest()}"


def _say_interrupted(sink: Stream | OutputFile, progress: Progress) -> None:
    n_lines = sink.n_done + progress.n_lines
    goes_on = "; the same command goes on from there" if isinstance(sink, OutputFile) else ""
    typer.echo(f"{n_lines:,} lines are written{goes_on}", err=True)


def _report(summary: Summary, target: Path | None) -> None:
    rate = summary.n_tokens / max(summary.seconds, 1e-3)
    before = f" ({summary.n_before:,} of them by earlier runs)" if summary.n_before else ""
    typer.echo(
        f"{summary.n_lines:,} lines{before}, {summary.n_tokens:,} tokens in {summary.seconds:.1f} s, "
        f"{rate:,.0f} tokens/s",
        err=True,
    )
    if summary.n_failed:
        typer.echo(
            f'error: {summary.n_failed:,} lines could not be answered; they have an "error"', err=True
        )
    if target is not None:
        told = {name.removeprefix("n_"): value for name, value in asdict(summary).items()}
        typer.echo(json.dumps({"output": str(target), **told, "tokens_per_second": rate}))


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the block as an exception, with status 143."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
