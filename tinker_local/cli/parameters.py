"""Options that several commands share: the model, how to run it, completion, error reporting."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Union

import typer

from tinker_local.errors import TinkerError
from tinker_local.options import ENVIRONMENT_PREFIX, Options
from tinker_local.sampling_client import SamplingClient
from tinker_local.service_client import ServiceClient
from tinker_local.store.inventory import Holding, inventory
from tinker_local.store.model_store import ModelStore
from tinker_local.weights import Weights


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """A model, an adapter and options, as given on the command line.

    Attributes:
        base: name or path of the model; None for the base that the adapter names, or the default model.
        adapter: name, path or ``tinker://`` path of a LoRA; None for none.
        lora_scale: factor on the LoRA's contribution.
        options: fields of ``Options``; None where not given.
    """

    base: str | None
    adapter: str | None
    lora_scale: float
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the model, or of the adapter where no model was given."""
        return self.base or self.adapter or ModelStore.default_name

    @property
    def title(self) -> str:
        """Names of model and adapter: ``BASE + ADAPTER``."""
        return " + ".join(filter(None, (self.base, self.adapter))) or ModelStore.default_name

    def open(self) -> SamplingClient:
        """Open a client.

        Raises:
            NotFoundError, BadRequestError: a file is missing or cannot be used.
        """
        service = ServiceClient(**self.options)
        return service.create_sampling_client(self.adapter, self._base, lora_scale=self.lora_scale)

    def find(self) -> Weights:
        """Return the files that ``open`` would open.

        Raises:
            NotFoundError, BadRequestError: a file is missing or cannot be used.
        """
        store = ModelStore(Options.resolve(self.options).models_dir)
        return Weights.find(store, self.adapter, self._base, self.lora_scale)

    @property
    def _base(self) -> str | None:
        return self.base if self.adapter else self.name


def runs_a_model(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a function whose first parameter is a ``ChosenModel`` into a typer command.

    In place of that parameter the command gets ``--model``, ``--adapter``, ``--lora-scale`` and an option
    for each field of ``Options``. typer reads the signature, so the new one is written onto the wrapper:
    a new field of ``Options`` becomes an option of every command without another line of code.
    """

    def run(
        options: Mapping[str, Any], model: str | None, adapter: str | None, lora_scale: float, **given: Any
    ) -> None:
        command(ChosenModel(model, adapter, lora_scale, options), **given)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return _with_options(run, [*own, *_model_parameters()])


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a function whose first parameter is a mapping of options into a typer command.

    In place of that parameter the command gets an option for each field of ``Options``; the values are None
    where not given.
    """
    return _with_options(command, list(inspect.signature(command, eval_str=True).parameters.values())[1:])


def _with_options(command: Callable[..., None], own: list[inspect.Parameter]) -> Callable[..., None]:
    def run(**given: Any) -> None:
        options = {name: given.pop(name) for name in Options.model_fields}
        with reported_errors():
            command(options, **given)

    parameters = [*own, *map(option_parameter, Options.model_fields)]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def option_parameter(name: str) -> inspect.Parameter:
    """Return the command-line parameter for a field of ``Options``; its default None means: not given."""
    kinds: list[Any] = [Options.model_fields[name].annotation, None]
    described = option(name, panel="Running the model")
    return _parameter(name, Annotated[Union[tuple(kinds)], described], None)  # noqa: UP007 (built at run time)


def option(name: str, panel: str | None = None) -> Any:
    """Return typer's option for a field of ``Options``, with its help text and environment variable."""
    help, variable = Options.model_fields[name].description, ENVIRONMENT_PREFIX + name.upper()
    return typer.Option(help=help, envvar=variable, rich_help_panel=panel)


def _model_parameters() -> list[inspect.Parameter]:
    model = typer.Option(
        "--model",
        "--base-model",
        autocompletion=complete_model,
        help="Name of a model, or path of a GGUF file. Unset: the base that the adapter names, else "
        f"{ModelStore.default_name}.",
    )
    adapter = typer.Option(
        autocompletion=complete_adapter,
        metavar="FILE",
        help="LoRA to apply to the model: a GGUF file, a name, or a tinker:// path.",
    )
    scale = typer.Option(help="Factor on what the LoRA adds: 0 is none, 1 as trained.")
    return [
        _parameter("model", Annotated[str | None, model], None),
        _parameter("adapter", Annotated[str | None, adapter], None),
        _parameter("lora_scale", Annotated[float, scale], 1.0),
    ]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def complete_model(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a model; of a tuned model also ``NAME@score``, ``NAME@one``, ``NAME@batch``."""
    return _complete(context, incomplete, lambda holding: not holding.is_adapter)


def complete_adapter(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of an adapter."""
    return _complete(context, incomplete, lambda holding: holding.is_adapter)


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """Complete any name in the store."""
    return _complete(context, incomplete, lambda holding: True)


def _complete(context: typer.Context, incomplete: str, wanted: Callable[[Holding], bool]) -> list[str]:
    try:
        options = Options.resolve({"models_dir": context.params.get("models_dir")})
        holdings = [holding for holding in inventory(ModelStore(options.models_dir)) if wanted(holding)]
    except (TinkerError, OSError):
        return []  # an error message would garble the line that is being typed
    names = [name for holding in holdings for name in (holding.name, *holding.aliases)]
    names += [f"{holding.name}@{work}" for holding in holdings for work in holding.tuned or ()]
    return [name for name in dict.fromkeys(names) if name.casefold().startswith(incomplete.casefold())]


@contextmanager
def reported_errors() -> Iterator[None]:
    """Report a ``TinkerError`` as one line on standard error with status 1."""
    try:
        yield
    except TinkerError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
