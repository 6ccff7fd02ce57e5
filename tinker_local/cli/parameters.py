"""Parameters that several commands share, and what they open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tinker_local.errors import TinkerError
from tinker_local.model_store import ModelStore
from tinker_local.options import ENVIRONMENT_PREFIX
from tinker_local.sampling_client import SamplingClient
from tinker_local.service_client import ServiceClient


class KvTypeName(StrEnum):
    """``KvType`` as typer wants it."""

    f16 = "f16"
    f32 = "f32"
    q8_0 = "q8_0"


class LogprobsModeName(StrEnum):
    """``LogprobsMode`` as typer wants it."""

    sampling = "sampling"
    raw = "raw"


def _option(*names: str, text: str) -> typer.models.OptionInfo:
    variable = ENVIRONMENT_PREFIX + names[0].removeprefix("--").replace("-", "_").upper()
    option: typer.models.OptionInfo = typer.Option(
        "/".join(names), help=text, envvar=variable, rich_help_panel="Running the model"
    )
    return option


ModelName = Annotated[
    str,
    typer.Option("--model", help="A known model's name, or the path of a GGUF file."),
]
NCtx = Annotated[int | None, _option("--n-ctx", text="Tokens the KV cache holds.")]
NThreads = Annotated[int | None, _option("--n-threads", text="Threads to compute with.")]
NGpuLayers = Annotated[
    int | None,
    _option("--n-gpu-layers", text="Layers on the GPU (Metal, CUDA builds); -1 for all."),
]
KvTypeOption = Annotated[KvTypeName | None, _option("--kv-type", text="Format of the KV cache.")]
FlashAttn = Annotated[
    bool | None,
    _option("--flash-attn", "--no-flash-attn", text="Use flash attention; llama.cpp decides if unset."),
]
LogprobsModeOption = Annotated[
    LogprobsModeName | None,
    _option(
        "--logprobs-mode",
        text="Report sampled tokens under the distribution drawn from, or the plain model's (raw).",
    ),
]
ModelsDir = Annotated[Path | None, _option("--models-dir", text="Where GGUF files are found by name.")]

DEFAULT_MODEL = ModelStore.default_name


def open_client(
    model: str,
    n_ctx: int | None,
    n_threads: int | None,
    n_gpu_layers: int | None,
    kv_type: KvTypeName | None,
    flash_attn: bool | None,
    logprobs_mode: LogprobsModeName | None = None,
    models_dir: Path | None = None,
) -> SamplingClient:
    """Open the model a command was given, with the options it was given."""
    service = ServiceClient(
        n_ctx=n_ctx,
        n_threads=n_threads,
        n_gpu_layers=n_gpu_layers,
        kv_type=kv_type.value if kv_type else None,
        flash_attn=flash_attn,
        logprobs_mode=logprobs_mode.value if logprobs_mode else None,
        models_dir=models_dir,
    )
    return service.create_sampling_client(base_model=model)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Print our errors as one line on standard error, and leave with status 1."""
    try:
        yield
    except TinkerError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None
