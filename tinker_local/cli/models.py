"""``tinker-local models``: list, add, verify and remove the models and adapters on this machine."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from convert.errors import ConversionError
from convert.files.hashes import read_hashes
from convert.files.sizes import format_bytes
from convert.progress import shown_progress
from tinker_local.cli.isolated import verify_isolated
from tinker_local.cli.parameters import complete_model, complete_name, option, reported_errors
from tinker_local.cli.tune import tune
from tinker_local.errors import TinkerError
from tinker_local.options import Options
from tinker_local.store.catalog import find_entry
from tinker_local.store.inventory import Holding, inventory
from tinker_local.store.keeper import StoreKeeper
from tinker_local.store.known_model import KnownModel
from tinker_local.store.model_store import ModelStore

models = typer.Typer(
    help="List, add, verify, tune and remove models and adapters.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)
ModelsDir = Annotated[Path | None, option("models_dir")]
Name = Annotated[
    str,
    typer.Argument(
        help="Name that `models list` prints, or a tinker:// path.", autocompletion=complete_name
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models.callback()
def _default(context: typer.Context, models_dir: ModelsDir = None) -> None:
    if context.invoked_subcommand is None:
        list_models(models_dir)
    elif models_dir and str(models_dir) != os.environ.get("TINKER_LOCAL_MODELS_DIR"):
        raise typer.BadParameter(
            f"put the option behind the command {context.invoked_subcommand}", param_hint="--models-dir"
        )


@models.command("list")
def list_models(models_dir: ModelsDir = None, as_json: AsJson = False) -> None:
    """List the models and adapters on this machine with size, type and base; then known ones to install.

    Example: tinker-local models list --json
    """
    with reported_errors():
        store = _store(models_dir)
        holdings = inventory(store)
        if as_json:
            typer.echo(json.dumps([_as_json(holding, holdings) for holding in holdings], indent=1))
            return
        for holding in holdings:
            _print(holding, holdings)
        missing = [model.name for model in store.models() if model.path is None]
        if missing:
            typer.echo(
                f"Known but not installed (`models show NAME` says how to get one): {', '.join(missing)}\n"
            )
        typer.echo(f"GGUF files in {store.directory} can be used by name.")


@models.command()
def show(name: Name, models_dir: ModelsDir = None, as_json: AsJson = False) -> None:
    """Show the details of a model or adapter: files, hashes, licence, source, base, adapters, limits.

    Example: tinker-local models show SmolLM2-135M-Instruct
    """
    with reported_errors():
        store = _store(models_dir)
        holdings = inventory(store)
        holding = _find(store, holdings, name)
        if holding is None:
            _show_missing(store, name, as_json)
            return
        if as_json:
            typer.echo(json.dumps(_as_json(holding, holdings), indent=1))
            return
        _print(holding, holdings, detailed=True)


@models.command()
def add(
    path: Annotated[
        Path,
        typer.Argument(help="GGUF file; with a tinker:// path as --name also a downloaded checkpoint."),
    ],
    name: Annotated[
        str | None, typer.Option(help="NAME, ORGANISATION/NAME or a tinker:// path. Unset: the file name.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Make a symbolic link instead of a copy.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of the same name.")] = False,
    models_dir: ModelsDir = None,
) -> None:
    """Add a file to the models directory under a name.

    Example: tinker-local models add my-model.gguf --name Me/Mine
    """
    with reported_errors(), shown_progress(path.name) as on_progress:
        keeper = StoreKeeper(_store(models_dir))
        typer.echo(keeper.add(path.expanduser(), name, link=link, force=force, on_progress=on_progress))


@models.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    models_dir: ModelsDir = None,
) -> None:
    """Delete a model, an adapter or a checkpoint from the models directory.

    Example: tinker-local models remove Me/Mine --yes
    """
    with reported_errors():
        store = _store(models_dir)
        keeper = StoreKeeper(store)
        holding = next((h for h in inventory(store) if h.name == name), None)
        what = keeper.entry(name).path if not name.startswith("tinker://") else holding and holding.path
        if not yes:
            typer.confirm(f"Delete {name} ({what})?", abort=True)
        for path in keeper.remove(name):
            typer.echo(f"removed {path}")


@models.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="Name of one model or adapter. Unset: all.")] = None,
    models_dir: ModelsDir = None,
    isolated: Annotated[
        bool, typer.Option(help="Try an untrusted file in a separate process instead; NAME may be a path.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            "--base-model",
            help="With --isolated: the model that an adapter is for.",
            autocompletion=complete_model,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare files with the SHA-256 recorded when they were added or converted; or try an untrusted file.

    Example: tinker-local models verify --json
    """
    if isolated:
        verify_isolated(name, base, models_dir, as_json=as_json)
        return
    with reported_errors():
        verdicts = []
        with shown_progress("Verifying") as on_progress:
            for verdict in StoreKeeper(_store(models_dir)).verify(name, on_progress):
                verdicts.append(verdict)
                said = "; ".join(verdict.problems) or ("ok" if verdict.is_recorded else "no hash recorded")
                if not as_json:
                    typer.echo(f"{verdict.name}: {said}")
        if as_json:
            typer.echo(json.dumps([asdict(verdict) for verdict in verdicts], indent=1))
        if any(verdict.problems for verdict in verdicts):
            raise typer.Exit(1)


models.command()(tune)


def find_named_base(name: str) -> Path:
    """Return the GGUF file of a base by its name; ``convert`` calls this for the base of an adapter.

    Raises:
        ConversionError: no model has this name; the message lists those that are there.
    """
    try:
        return ModelStore().resolve(name)
    except TinkerError as error:
        raise ConversionError(f"the base cannot be found: {error}") from None


def _store(models_dir: Path | None) -> ModelStore:
    return ModelStore(Options.resolve({"models_dir": models_dir}).models_dir)


def _find(store: ModelStore, holdings: list[Holding], name: str) -> Holding | None:
    for holding in holdings:
        if name.casefold() == holding.name.casefold():
            return holding
    if name.startswith("tinker://"):
        return None
    found = store.find(name)
    paths = {model.path for model in found}
    return next((holding for holding in holdings if holding.path in paths), None)


def _show_missing(store: ModelStore, name: str, as_json: bool) -> None:
    entry = find_entry(name)
    if entry is None:
        store.resolve(name)  # raises an error that lists the known names
        return
    if as_json:
        facts = {"name": entry.name, "aliases": entry.aliases, "path": None, "license": entry.license}
        typer.echo(json.dumps(facts | {"how_to_get": entry.how_to_get}, indent=1))
        return
    typer.secho(entry.name, bold=True, nl=False)
    typer.echo("  not installed")
    _line("also called", ", ".join(entry.aliases))
    _line("context", f"{entry.context_length:,} tokens")
    _line("licence", entry.license)
    _line("source", entry.source)
    _line("get it", entry.how_to_get)


def _print(holding: Holding, holdings: list[Holding], *, detailed: bool = False) -> None:
    adapters = [other.name for other in holdings if other.fits(holding)]
    reads = ", ".join(holding.reads) if len(holding.reads) > 1 else ""
    facts = [format_bytes(holding.n_bytes), holding.kind, reads, holding.license or ""]
    typer.secho(holding.name, bold=True, nl=False)
    typer.echo("  " + "  ".join(filter(None, facts)))
    _line("also called", ", ".join(holding.aliases))
    if holding.is_adapter:
        unsaid = "named in the archive" if holding.path.match("*.tar*") else "unknown; give base_model"
        _line("base", holding.base_name or unsaid)
    _line("adapters", ", ".join(adapters))
    if holding.tuned:
        kept = ", ".join(f"{work} {type or 'this file'}" for work, type in holding.tuned.items())
        _line("tuned", kept)
    for path in KnownModel(holding.name, path=holding.path).files if detailed else [holding.path]:
        _line("file", str(path))
    if detailed:
        for label, value in _details(holding).items():
            _line(label, value)
        for limit in _limits(holding):
            _line("limit", limit)
    _line("problem", holding.problem)
    typer.echo()


def _details(holding: Holding) -> dict[str, str | None]:
    details: dict[str, str | None] = {}
    if entry := find_entry(holding.name):
        details |= {"context": f"{entry.context_length:,} tokens", "source": entry.source}
    if told := holding.provenance:
        details |= {"architecture": told.architecture, "tokenizer": told.tokenizer, "from": told.name}
        details["reads"] = None if holding.is_adapter else ", ".join(holding.reads)
        details |= {"weights": told.source_hash, "base weights": told.base_hash}
    return details | {f"sha256 {name}": digest for name, digest in _hashes(holding.path).items()}


def _limits(holding: Holding) -> tuple[str, ...]:
    return holding.provenance.limits if holding.provenance else ()


def _hashes(path: Path) -> dict[str, str]:
    try:
        return read_hashes(path) or {}
    except ConversionError:
        return {}  # the file of hashes is damaged: `verify` reports that


def _line(label: str, value: str | None) -> None:
    if value:
        typer.echo(f"  {label:<12} {value}")


def _as_json(holding: Holding, holdings: list[Holding]) -> dict[str, Any]:
    return {
        "name": holding.name,
        "aliases": holding.aliases,
        "path": str(holding.path),
        "bytes": holding.n_bytes,
        "type": holding.provenance.type if holding.provenance else None,
        "kind": "adapter" if holding.is_adapter else "model",
        "tokenizer": holding.provenance.tokenizer if holding.provenance else None,
        "limits": list(_limits(holding)),
        "base": holding.base_name,
        "adapters": [other.name for other in holdings if other.fits(holding)],
        "license": holding.license,
        "reads": None if holding.is_adapter else holding.reads,
        "tuned": holding.tuned and dict(holding.tuned),
        "sha256": _hashes(holding.path),
        "problem": holding.problem,
    }
