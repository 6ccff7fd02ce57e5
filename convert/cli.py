"""``tinker-local convert`` and ``python -m convert``."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from convert.errors import ConversionError, ConversionWarning
from convert.gguf.file_types import FILE_TYPES

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", re.IGNORECASE)
_TYPES = (
    f"{', '.join(FILE_TYPES)}. q4_0+bf16 is q4_0 with the output matrix in bf16. auto keeps each matrix in "
    "its precision."
)


def convert(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            help="A Hugging Face model directory, a GGUF file, or a LoRA adapter: a directory of Tinker's "
            "or PEFT's, or a tar archive of one."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file to write. Default: by its name in the models directory."
        ),
    ] = None,
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="tinker://RUN/sampler_weights/NAME",
            help="Store the result in the models directory under this path.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The base of an adapter: a Hugging Face directory, a GGUF file, or a name. Default: the "
            "base that the adapter names.",
        ),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Add the adapter to its base, and write a whole model.")
    ] = False,
    any_base: Annotated[
        bool, typer.Option("--any-base", help="Use the base even if the adapter names another.")
    ] = False,
    type: Annotated[
        str | None,
        typer.Option(
            "--type", "-t", help=f"{_TYPES} Default: bf16; f32 for an adapter.", show_default=False
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the result: NAME or ORGANISATION/NAME.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    verify: Annotated[
        bool, typer.Option(help="Check that llama.cpp loads the result and tokenizes as the source does.")
    ] = True,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Compare log-probabilities with transformers afterwards; needs transformers and torch.",
        ),
    ] = False,
    split_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Split the model into files of at most this size: 5GB, 500MB."),
    ] = None,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="Leave out the vision tower of a model that reads images.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert a model or an adapter to a GGUF file.

    The vision tower of a model that reads images goes to a second file beside it, mmproj-NAME.gguf.

    Example: tinker-local convert my-finetune --type q8_0 --output my-finetune.gguf
    """
    start = time.monotonic()
    limit = None if split_size is None else _parse_size(split_size)
    with reported_conversion_errors():
        if as_ is not None:
            output = _checkpoint_file(as_, output)
        from convert.adapter import base_name, convert_adapter, is_adapter_source
        from convert.adapters.base_lookup import find_base
        from convert.convert import convert_checkpoint
        from convert.files.mmproj import mmproj_path
        from convert.files.sizes import format_bytes
        from convert.progress import shown_progress
        from convert.untied import untied_of
        from convert.verification.compare import compare_logprobs

        is_adapter = is_adapter_source(source)
        if not is_adapter and (base or merge or any_base):
            raise ConversionError(
                f"{source} is no adapter (a directory with adapter_config.json, or a tar archive of one); "
                "--base, --merge and --any-base are for adapters"
            )
        if is_adapter and compare:
            raise ConversionError("--compare is for models, not for adapters")
        with shown_progress(source.name) as on_progress, _shown_warnings():
            how: dict[str, Any] = {
                "outtype": type or ("f32" if is_adapter and not merge else "bf16"),
                "name": name,
                "force": force,
                "verify": verify,
                "split_size": limit,
                "text_only": text_only,
                "on_progress": on_progress,
            }
            if is_adapter:
                elsewhere = context.obj  # tinker-local's store; nothing for ``python -m convert``
                found = find_base(base or base_name(source), needs_weights=merge, elsewhere=elsewhere)
                path = convert_adapter(source, found, output, merge=merge, any_base=any_base, **how)
            else:
                path = convert_checkpoint(source, output, **how)
        seconds = time.monotonic() - start
        untied = untied_of(found) if is_adapter and not merge else None
        tower = mmproj_path(path) if mmproj_path(path).is_file() else None
        compared = compare_logprobs(path, source) if compare else None
        if as_json:
            made = {"path": str(path), "bytes": _size(path), "type": how["outtype"].lower()}
            made |= {"seconds": seconds, "untied": untied and str(untied), "mmproj": tower and str(tower)}
            typer.echo(json.dumps(made | {"compared": compared and asdict(compared)}))
            return
        typer.echo(f"{path}  {format_bytes(_size(path))}  {how['outtype'].lower()}  {seconds:.1f} s")
        if tower:
            typer.echo(f"{tower}  {format_bytes(_size(tower))}  the vision tower")
        if untied:
            typer.echo(f"{untied}  the base with an output matrix of its own, for adapters that change it")
        if compared:
            typer.echo(
                f"log-probabilities of {compared.n_tokens} tokens differ from transformers' by "
                f"{compared.mean:.2g} on average, at most by {compared.largest:.2g}"
            )


def _checkpoint_file(path: str, output: Path | None) -> Path:
    from convert.files.models_directory import checkpoint_file

    if output is not None:
        raise typer.BadParameter(
            "--output and --as both name a place for the result; leave one out", param_hint="--as"
        )
    return checkpoint_file(path)


def _size(path: Path) -> int:
    """Return the size in bytes of a file, or of all parts if it is a first part."""
    from convert.files.parts import parts_of

    return sum(part.stat().st_size for part in parts_of(path))


def _parse_size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    size = match and int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))
    if not size:
        raise typer.BadParameter(f"{text!r} is not a size; write 5GB or 500MB", param_hint="--split-size")
    return size


@contextmanager
def _shown_warnings() -> Iterator[None]:
    """Print the converter's warnings on standard error when the work is done."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConversionWarning)
        yield
    for warning in caught:
        typer.echo(f"warning: {warning.message}", err=True)


@contextmanager
def reported_conversion_errors() -> Iterator[None]:
    """Print errors as one line on standard error; exit with status 1, or 130 and 143 after signals.

    A handler of SIGTERM that others set stays. The ``KeyboardInterrupt`` that it raises has a ``number``.
    """

    def leave(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    is_ours = threading.current_thread() is threading.main_thread()
    is_ours = is_ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if is_ours:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except ConversionError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt as error:
        typer.echo("interrupted; nothing was left behind", err=True)
        raise typer.Exit(128 + getattr(error, "number", signal.SIGINT)) from None
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
