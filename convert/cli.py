"""``tinker-local convert`` and ``python -m convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint directory or a GGUF file.")],
) -> None:
    """Convert saved weights to GGUF (not in this version)."""
    typer.echo(
        f"error: this version of tinker-local cannot convert {source} yet. Until it does, llama.cpp's "
        "own convert_hf_to_gguf.py makes GGUF files that it runs.",
        err=True,
    )
    raise typer.Exit(1)
