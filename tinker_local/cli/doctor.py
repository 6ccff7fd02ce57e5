"""``tinker-local doctor``: what is installed, what there is, and what is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tinker_local.cli.parameters import option, reported_errors
from tinker_local.doctor import Report, examine
from tinker_local.errors import BadRequestError
from tinker_local.options import Options
from tinker_local.store.model_store import ModelStore


def doctor(
    model: Annotated[
        str | None, typer.Option(help="A model to try, by name or path. Unset: the default one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    models_dir: Annotated[Path | None, option("models_dir")] = None,
) -> None:
    """Show versions, how llama.cpp was built, devices and models, and what is wrong, with what to do.

    Ends with status 1 if something is wrong. A model is tried in a process of its own.

    \b
    tinker-local doctor
    tinker-local doctor --model my-model.gguf --json
    """
    with reported_errors():
        report = examine(_store(models_dir), model)
    if as_json:
        findings = [asdict(finding) for finding in report.findings]
        typer.echo(json.dumps({**report.sections, "findings": findings, "ok": report.is_well}, indent=1))
    else:
        _print(report)
    if not report.is_well:
        raise typer.Exit(1)


def _store(models_dir: Path | None) -> ModelStore:
    """Return the store, also where another setting of the environment is wrong: that is told later."""
    try:
        return ModelStore(Options.resolve({"models_dir": models_dir}).models_dir)
    except BadRequestError:
        return ModelStore(models_dir)


def _print(report: Report) -> None:
    for title, facts in report.sections.items():
        typer.secho(title, bold=True, nl=False)
        typer.echo("" if facts else "  none")
        for name, value in facts.items():
            if value is not None:
                typer.echo(f"  {name:<16} {_shown(value)}")
    typer.echo()
    for finding in report.findings:
        is_wrong = finding.is_wrong
        typer.secho(
            "wrong" if is_wrong else "could be better", fg="red" if is_wrong else "yellow", nl=False
        )
        typer.echo(f": {finding.what}\n  {finding.remedy}")
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
