"""``tinker-local models``: what can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinker_local.cli.parameters import option, reported_errors
from tinker_local.model_store import KnownModel, ModelStore, install_command
from tinker_local.options import Options


def models(models_dir: Annotated[Path | None, option("models_dir")] = None) -> None:
    """List the models that can be used by name, and how to install those that are missing."""
    with reported_errors():
        store = ModelStore(Options.resolve({"models_dir": models_dir}).models_dir)
        for model in store.models():
            _print(model)
        typer.echo(f"GGUF files in {store.directory} are found by their names.")


def _print(model: KnownModel) -> None:
    size = f"{model.path.stat().st_size / 1e6:,.0f} MB" if model.path else "not installed"
    typer.secho(model.name, bold=True, nl=False)
    typer.echo(f"  {size}  {model.license or ''}".rstrip())
    if model.aliases:
        typer.echo(f"  also called  {', '.join(model.aliases)}")
    if model.path:
        typer.echo(f"  file         {model.path}")
    else:
        typer.echo(f"  install      {install_command(model.extra or 'demo')}")
    typer.echo()
