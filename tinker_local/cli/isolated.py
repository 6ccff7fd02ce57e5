"""``tinker-local models verify --isolated``: does a file from a stranger do what a model does?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from tinker_local.cli.parameters import reported_errors
from tinker_local.errors import NotFoundError
from tinker_local.isolated import try_isolated
from tinker_local.options import Options
from tinker_local.store.model_store import ModelStore


def verify_isolated(
    name: str | None, base: str | None, models_dir: Path | None, *, as_json: bool = False
) -> None:
    """Try the file that a name or path stands for, on the base that another does; print what came of it."""
    if name is None:
        raise typer.BadParameter("--isolated needs the name or path of what to try")
    with reported_errors():
        store = ModelStore(Options.resolve({"models_dir": models_dir}).models_dir)
        path = Path(name).expanduser() if Path(name).expanduser().is_file() else store.resolve(name)
        if not path.is_file():
            raise NotFoundError(f"there is no file {path}")
        found = try_isolated(path.resolve(), store.resolve(base).resolve() if base else None)
        if as_json:
            typer.echo(json.dumps({"path": str(path), **asdict(found)}))
            return
        typer.echo(f"{path}: ok; {found.n_vocab:,} tokens in the vocabulary, {found.n_decoded} decoded")
