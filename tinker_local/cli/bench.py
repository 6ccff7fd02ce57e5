"""``tinker-local bench``: the speed of this machine with a model."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinker_local.cli.parameters import ChosenModel, runs_a_model
from tinker_local.options import Options

if TYPE_CHECKING:
    from tinker_local.bench.report import BenchReport

_N_CTX = 4096  # room for 32 samples; a model's training context could take all the memory


@runs_a_model
def bench(
    model: ChosenModel,
    seconds: Annotated[
        float, typer.Option(min=1.0, help="Approximate duration of the measurement.")
    ] = 50.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure scoring and sampling, compared with bare llama.cpp; recommend numbers of threads and a type.

    Times are medians over several rounds; in each round the candidates take turns. Close other programs
    first: they slow down what is measured.

    \b
    tinker-local bench
    tinker-local bench --model Qwen/Qwen3-0.6B --seconds 120 --json
    """
    given = Options.resolve(model.options)
    model = replace(model, options={**model.options, "prefix_cache": False, "n_ctx": given.n_ctx or _N_CTX})
    client = model.open()
    from tinker_local.bench.report import measure

    report = measure(client, seconds, lambda said: None if as_json else typer.echo(said, err=True))
    if as_json:
        typer.echo(json.dumps(_as_json(model.name, report), indent=1))
    else:
        _print(model.name, report)


def _print(name: str, report: BenchReport) -> None:
    threads = f"{report.n_threads} threads ({report.n_threads_batch} for batches)"
    typer.echo(f"{name}, {report.type or 'unknown type'}, {threads}; tokens per second\n")
    typer.echo(f"{'':24}{'ours':>10}{'bare':>10}{'ours/bare':>12}")
    for speed in report.speeds:
        typer.echo(f"{speed.name:24}{speed.ours:10,.1f}{speed.bare:10,.1f}{speed.ratio:12.2f}")
    read = f"{report.weight_bytes / 1e6:,.0f} MB of weights per token"
    reached = f"{read}, read at {report.bandwidth / 1e9:.1f} GB/s for one sample"
    if report.memory_read is not None:
        reached += f"; main memory delivers {report.memory_read / 1e9:.1f} GB/s"
    typer.echo(f"\n{reached}\n")
    if report.threads:
        typer.echo(f"{'threads':>8}{'score':>12}{'sample 1':>12}{'sample 8':>12}")
    for found in report.threads:
        typer.echo(f"{found.n_threads:8}{found.score:12,.1f}{found.sample:12,.1f}{found.batch:12,.1f}")
    if report.types:
        typer.echo(f"\n{'layers as':>10}{'score':>12}{'sample 1':>12}{'sample 8':>12}")
    for kind in report.types:
        typer.echo(f"{kind.type:>10}{kind.score:12,.1f}{kind.sample:12,.1f}{kind.batch:12,.1f}")
    typer.echo("")
    for said in report.recommendations:
        typer.echo(said)


def _as_json(name: str, report: BenchReport) -> dict[str, Any]:
    n_threads, n_threads_batch = report.recommended_threads or (None, None)
    return {
        "model": name,
        **asdict(report),
        "recommended_threads": n_threads,
        "recommended_threads_batch": n_threads_batch,
        "recommended_types": report.recommended_types,
        "recommendations": report.recommendations,
    }
