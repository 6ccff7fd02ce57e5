"""Files of requests: the options ``--input``, ``--output``, .. of ``sample`` and ``logprobs``."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from convert.gguf.mmproj import find_mmproj
from tinker_local.batch import BatchRun, OutputFile, OutputStream, SampleTask, ScoreTask, Shard, Summary
from tinker_local.batch.fingerprint import fingerprint
from tinker_local.batch.lines import Source, read_lines
from tinker_local.batch.progress import BatchProgress
from tinker_local.cli.parameters import ChosenModel
from tinker_local.errors import NotFoundError
from tinker_local.options import Options
from tinker_local.weights import Weights

PANEL = "Many at once"
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="FILE",
        rich_help_panel=PANEL,
        help='File of JSON lines, each with "prompt", "messages" or "tokens"; - reads standard input.',
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="FILE",
        rich_help_panel=PANEL,
        help="File for the answers, one JSON line for each line of --input. If an interrupted run left it, "
        "this run continues it. Unset: standard output (-).",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", rich_help_panel=PANEL, help="Start --output over if it exists.")
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        rich_help_panel=PANEL,
        help="Answer only lines I, I+N, I+2N, ... of --input; I counts from 1. Give each shard an --output "
        "of its own, then join them with merge. sample needs --seed, too.",
    ),
]
_NUMERIC_OPTIONS = ("n_ctx", "kv_type", "flash_attn", "logprobs_mode", "batch_invariant")
"""Options that change the numbers; all others change only the speed."""


def check_batch(
    given: object, input: str | None, output: str | None, force: bool, shard: str | None, what: str
) -> None:
    """Check that --output, --force and --shard come with --input, and that --input comes alone.

    Args:
        given: the single request on the command line, if any.
        input: the file of requests, if any.
        output: the file for answers, if any.
        force: whether --force was given.
        shard: the shard, if any.
        what: name of the single request in the message.

    Raises:
        BadParameter: the options contradict each other.
    """
    if input is None and (output is not None or force or shard is not None):
        raise typer.BadParameter("--output, --force and --shard need --input")
    if input is not None and given is not None:
        raise typer.BadParameter(f"give either {what} or --input, not both")


def run_batch(
    model: ChosenModel,
    task: SampleTask | ScoreTask,
    input: str,
    output: str | None,
    *,
    seed: int | None = None,
    force: bool = False,
    shard: str | None = None,
    as_json: bool = False,
) -> None:
    """Answer each line of a file, then print a summary; with ``as_json`` as one JSON object.

    Leaves with status 1 if a line could not be answered, 130 after SIGINT, 143 after SIGTERM.

    Args:
        model: the model to run.
        task: sampling or scoring.
        input: path of the requests, or - for standard input.
        output: path of the answers; - or None for standard output.
        seed: seed of the run; None draws one, or keeps that of the run which is continued.
        force: start the output over.
        shard: answer the lines of this shard, ``I/N``; None answers all.
        as_json: print the summary as JSON.
    """
    # Everything that can be refused cheaply comes before the model is opened; the output file comes after
    # it, since its settings name the model's fingerprint.
    if shard is not None and isinstance(task, SampleTask) and seed is None:
        raise typer.BadParameter("--shard needs --seed: all shards draw from one seed")
    part = Shard.parse(shard) if shard is not None else Shard()
    with ExitStack() as stack:
        source, n_bytes = _open_input(input, stack)
        target = None if output in (None, "-") else Path(output or "").expanduser()
        if target and input != "-" and target.exists() and target.samefile(input):
            raise typer.BadParameter(f"--input and --output are both {input}")
        client = model.open()
        sink: OutputStream | OutputFile
        if target is None or (target.exists() and not target.is_file()):
            sink = OutputStream(_open_stream(target, stack), seed)
        else:
            sink = OutputFile(
                target, run_settings(client.weights, client.options, task, part), seed, force=force
            )
        stack.callback(sink.close)
        if isinstance(task, SampleTask):
            task.seed = sink.seed
        progress = BatchProgress("Sampling" if isinstance(task, SampleTask) else "Scoring", n_bytes)
        try:
            summary = BatchRun(client, task, sink, progress).run(read_lines(source), part)
        except KeyboardInterrupt:
            say_interrupted(sink, progress)
            raise
    report(summary, target if as_json else None)
    say_failed(summary.n_failed)


def _open_input(name: str, stack: ExitStack) -> tuple[Source, int | None]:
    """Open the input; return it and its size in bytes, None where it is not known."""
    if name == "-":
        stream = sys.stdin.buffer
        return getattr(stream, "raw", stream), None  # unbuffered: a thread waiting in it holds no lock
    path = Path(name).expanduser()
    try:
        file = stack.enter_context(path.open("rb", buffering=0))
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}") from None
    return file, os.fstat(file.fileno()).st_size or None


def _open_stream(path: Path | None, stack: ExitStack) -> BinaryIO:
    return sys.stdout.buffer if path is None else stack.enter_context(path.open("wb"))


def run_settings(
    weights: Weights, options: Options, task: SampleTask | ScoreTask, shard: Shard
) -> dict[str, Any]:
    """Return all that the answers depend on, apart from the input and the seed."""
    values = options.model_dump(mode="json")
    files = {"model": weights.path, "tower": find_mmproj(weights.path), "adapter": weights.adapter_path}
    part = {"shard": str(shard)} if shard.count > 1 else {}
    return {
        **task.settings,
        **part,
        **{name: fingerprint(path) for name, path in files.items() if path},
        "lora_scale": weights.lora_scale,
        **{name: values[name] for name in _NUMERIC_OPTIONS},
    }


def say_interrupted(sink: OutputStream | OutputFile, progress: BatchProgress) -> None:
    """Say how far a run came, and how to continue it."""
    n_lines = sink.n_done + progress.n_lines
    remedy = "; run the same command again to continue" if isinstance(sink, OutputFile) else ""
    typer.echo(f"{n_lines:,} lines are written{remedy}", err=True)


def report(summary: Summary, target: Path | None) -> None:
    """Print what a run did; with the ``target`` of its answers, also as one JSON object."""
    rate = summary.n_tokens / max(summary.seconds, 1e-3)
    before = f" ({summary.n_before:,} by earlier runs)" if summary.n_before else ""
    typer.echo(
        f"{summary.n_lines:,} lines{before}, {summary.n_tokens:,} tokens in {summary.seconds:.1f} s, "
        f"{rate:,.0f} tokens/s",
        err=True,
    )
    if target is not None:
        told = {name.removeprefix("n_"): value for name, value in asdict(summary).items()}
        typer.echo(json.dumps({"output": str(target), **told, "tokens_per_second": rate}))


def say_failed(n_failed: int) -> None:
    """Say how many lines have an error, and leave with status 1 if any has."""
    if n_failed:
        typer.echo(f'error: {n_failed:,} lines could not be answered; see "error" in each', err=True)
        raise typer.Exit(1)
