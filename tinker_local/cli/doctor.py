"""``tinker-local doctor``: show the installation and the machine, and diagnose problems."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tinker_local.cli.parameters import option, reported_errors
from tinker_local.doctor import DoctorReport, examine
from tinker_local.errors import BadRequestError
from tinker_local.options import Options
from tinker_local.store.model_store import ModelStore


def doctor(
    model: Annotated[
        str | None, typer.Option(help="Model to try, by name or path. Unset: the default model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    models_dir: Annotated[Path | None, option("models_dir")] = None,
) -> None:
    """Show versions, the build of llama.cpp, devices and models; name each problem with its remedy.

    Leaves with status 1 if something is wrong. The model is tried in a separate process.

    \b
    tinker-local doctor
    tinker-local doctor --model my-model.gguf --json
    """
    with reported_errors():
        report = examine(_store(models_dir), model)
    if as_json:
        findings = [asdict(diagnosis) for diagnosis in report.diagnoses]
        typer.echo(json.dumps({**report.sections, "findings": findings, "ok": report.is_well}, indent=1))
    else:
        _print(report)
    if not report.is_well:
        raise typer.Exit(1)


def _store(models_dir: Path | None) -> ModelStore:
    """Return the store even if an environment variable is invalid; ``software.diagnoses`` reports those."""
    try:
        return ModelStore(Options.resolve({"models_dir": models_dir}).models_dir)
    except BadRequestError:
        return ModelStore(models_dir)


def _print(report: DoctorReport) -> None:
    for title, facts in report.sections.items():
        typer.secho(title, bold=True, nl=False)
        typer.echo("" if facts else "  none")
        for name, value in facts.items():
            if value is not None:
                typer.echo(f"  {name:<16} {_shown(value)}")
    typer.echo()
    for diagnosis in report.diagnoses:
        is_wrong = diagnosis.is_wrong
        typer.secho(
            "wrong" if is_wrong else "could be better", fg="red" if is_wrong else "yellow", nl=False
        )
        typer.echo(f": {diagnosis.what}\n  {diagnosis.remedy}")
    if report.is_well:
        typer.secho("nothing is wrong", fg="green")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_shown(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return str(value)
