"""``tinker-local merge``: the outputs of shards become one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinker_local.batch import merge as merge_shards
from tinker_local.cli.batch import say_failed
from tinker_local.cli.parameters import reported_errors


def merge(
    shards: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Outputs of all shards.")],
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="File for all lines, in the input's order.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace --output if it exists.")] = False,
) -> None:
    """Merge the outputs of shards into the file that one run would have written.

    \b
    tinker-local merge out.*.jsonl --output out.jsonl

    An error names the lines and shards that are missing, there twice, or made with other settings.
    """
    with reported_errors():
        merged = merge_shards([path.expanduser() for path in shards], output.expanduser(), force=force)
    typer.echo(f"{merged.n_lines:,} lines of {len(shards):,} shards", err=True)
    say_failed(merged.n_failed)
