"""``tinker-local models tune``: choose the best GGUF type of a model for this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import reported_conversion_errors
from convert.errors import UnsupportedError
from convert.files.sizes import format_bytes
from convert.gguf.file_types import find_type
from tinker_local.cli.parameters import complete_model, option, reported_errors
from tinker_local.options import Options
from tinker_local.store.known_model import KnownModel, choose
from tinker_local.store.model_store import ModelStore
from tinker_local.store.tuned import WORKS, Tuned, forget
from tinker_local.tuning.candidates import DEFAULT_TYPES
from tinker_local.tuning.text import BUILT_IN_TEXT

if TYPE_CHECKING:
    from tinker_local.tuning.tuner import Tuner, TypeMeasurement

_COLUMNS = ("score", "one", "8", "32")


def tune(
    name: Annotated[
        str,
        typer.Argument(
            help="Name that `models list` prints, or path of a GGUF file.", autocompletion=complete_model
        ),
    ],
    types: Annotated[
        str,
        typer.Option(
            help="Types to measure, with commas between; q4_0+bf16 is q4_0 with the output matrix as bf16."
        ),
    ] = ",".join(DEFAULT_TYPES),
    text: Annotated[
        Path | None,
        typer.Option(
            "--text", "--file", metavar="FILE", help="Text to measure quality on. Unset: a built-in text."
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=32, help="Tokens of the text to read.")] = 2048,
    max_kl: Annotated[
        float, typer.Option(min=0, help="Largest mean KL divergence that a chosen type may have, in nats.")
    ] = 0.05,
    rounds: Annotated[int, typer.Option(min=3, help="Number of timings of each kind of work.")] = 5,
    keep: Annotated[bool, typer.Option("--keep", help="Also make the files of the chosen types.")] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Only remove an earlier choice and its files.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    models_dir: Annotated[Path | None, option("models_dir")] = None,
    n_threads: Annotated[int | None, option("n_threads")] = None,
    n_threads_batch: Annotated[int | None, option("n_threads_batch")] = None,
    n_gpu_layers: Annotated[int | None, option("n_gpu_layers")] = None,
    devices: Annotated[str | None, option("devices")] = None,
) -> None:
    """Measure GGUF types of a model on this machine, and choose one for each kind of work.

    Each type is made from the model's most exact file in a temporary place, timed alternately with that
    file, and removed. Speed is the median in tokens per second, then the ratio to the file's own speed;
    half the distance between the ratio's quartiles follows the ±. KL is the mean divergence of
    next-token distributions from the most exact type, ± its standard error.

    For scoring, for one sample and for batches, the fastest type within --max-kl is chosen; among equally
    fast types, the most exact. NAME@score, NAME@one and NAME@batch then open the chosen types; NAME stays
    the most exact file.

    Example: tinker-local models tune SmolLM2-135M-Instruct --types q8_0,q4_0,q4_0+bf16 --keep
    """
    asked = _parsed(types)
    with reported_errors(), reported_conversion_errors():
        options = Options.resolve(
            {
                "models_dir": models_dir,
                "n_threads": n_threads,
                "n_threads_batch": n_threads_batch,
                "n_gpu_layers": n_gpu_layers,
                "devices": devices,
            }
        )
        store = ModelStore(options.models_dir)
        model = choose(name, store.candidates(name))
        if remove:
            typer.echo(f"{name}: {'removed' if forget(store.directory, model) else 'not tuned'}")
            return
        from tinker_local.tuning.tuner import Tuner

        tuner = Tuner(model, store.directory, options, _read(text), max_tokens=max_tokens, rounds=rounds)
        rows = _measured(tuner, asked, shown=not as_json)
        tuned = tuner.choose(rows, max_kl)
        tuner.keep(tuned, rows, max_kl, files=keep)
        if as_json:
            typer.echo(json.dumps({"types": dict(tuned.types), **tuner.to_json(rows, max_kl)}, indent=1))
        else:
            _print_choice(model, tuned, rows, keep)


def _parsed(types: str) -> list[str]:
    try:
        return [find_type(type.strip()).name for type in types.split(",") if type.strip()]
    except UnsupportedError as error:
        raise typer.BadParameter(str(error), param_hint="--types") from None


def _read(path: Path | None) -> str:
    if path is None:
        return BUILT_IN_TEXT
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(
            f"{path} cannot be read as UTF-8 text: {error}", param_hint="--text"
        ) from None


def _measured(tuner: Tuner, types: list[str], *, shown: bool) -> list[TypeMeasurement]:
    if shown:
        said = tuner.to_json([], 0)
        typer.echo(
            f"{tuner.source}, {said['n_threads']} threads ({said['n_threads_batch']} for batches), "
            f"{said['n_tokens']:,} tokens of text,"
        )
        typer.echo(f"medians of {said['rounds']} rounds; KL from {tuner.reference_type}\n")
        typer.echo(
            f"{'type':<12} {'size':>9} {'KL':>16} {'perplexity':>10}"
            + "".join(f"{_heading(column):>19}" for column in _COLUMNS)
        )
    rows = []
    for row in tuner.measure(types):
        rows.append(row)
        if shown:
            typer.echo(_line(row))
    return rows


def _heading(column: str) -> str:
    return {"score": "score", "one": "1 sample"}.get(column, f"{column} samples")


def _line(row: TypeMeasurement) -> str:
    if row.quality is None:
        return f"{row.type:<12} {row.problem}"
    quality = row.quality
    cells = (
        f"{speed.rate:8.1f} {speed.ratio:5.2f}±{(speed.high - speed.low) / 2:.2f}"
        for speed in (row.speeds[column] for column in _COLUMNS)
    )
    name = f"{row.type} (file)" if row.is_source else row.type
    return (
        f"{name:<12} {format_bytes(row.n_bytes):>9} {quality.kl:8.5f}±{quality.kl_error:.5f} "
        f"{quality.perplexity:10.3f}" + "".join(f"{cell:>19}" for cell in cells)
    )


def _print_choice(model: KnownModel, tuned: Tuned, rows: list[TypeMeasurement], keep: bool) -> None:
    typer.echo()
    for work in WORKS:
        type = tuned.types[work]
        row = next(row for row in rows if (row.is_source if type is None else row.type == type))
        assert row.quality is not None
        typer.echo(
            f"{work:<6} {row.type}: {row.speeds[work].ratio:.2f} times as fast as the file, "
            f"KL {row.quality.kl:.5f}"
        )
    if not keep and any(tuned.types.values()):
        typer.echo(f"\n--keep makes these files; {model.name}@score, @one and @batch then open them.")
