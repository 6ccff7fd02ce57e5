"""``tinker-local models verify --isolated``: try an untrusted file in a separate process."""

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
    """Open a model or adapter in a separate process, run it for a few tokens, and print the result.

    Args:
        name: name or path of the model or adapter.
        base: name of the model that an adapter is for.
        models_dir: the models directory; None for the usual one.
        as_json: print one JSON object.
    """
    if name is None:
        raise typer.BadParameter("--isolated needs the name or path of a file to try")
    with reported_errors():
        store = ModelStore(Options.resolve({"models_dir": models_dir}).models_dir)
        path = Path(name).expanduser() if Path(name).expanduser().is_file() else store.resolve(name)
        if not path.is_file():
            raise NotFoundError(f"there is no file {path}; give the name or path of a GGUF file")
        found = try_isolated(path.resolve(), store.resolve(base).resolve() if base else None)
        if as_json:
            typer.echo(json.dumps({"path": str(path), **asdict(found)}))
            return
        typer.echo(f"{path}: ok; {found.n_vocab:,} tokens in the vocabulary, {found.n_decoded} decoded")
