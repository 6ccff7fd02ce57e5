"""How the harness's ``model_args`` open a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tinker_local import checks
from tinker_local.errors import BadRequestError
from tinker_local.options import Options
from tinker_local.sampling_client import SamplingClient
from tinker_local.service_client import ServiceClient
from tinker_local.store.model_store import ModelStore


def open_model(
    model: str | None, adapter: str | None, lora_scale: float, options: Mapping[str, Any]
) -> SamplingClient:
    """Open a model, by default that which the adapter names or the default one.

    Raises:
        BadRequestError: an option has an impossible value, or a file cannot be used.
        NotFoundError: there is no such model.
    """
    base = None if model is None else str(model)  # the harness makes a number of a name that looks like one
    if base is None and adapter is None:
        base = ModelStore.default_name
    return ServiceClient(**options).create_sampling_client(adapter, base, lora_scale=lora_scale)


def refuse_unknown(options: Mapping[str, Any], others: Iterable[str]) -> None:
    """Raise BadRequestError for a name that is no option of ``ServiceClient``; ``others`` may be given."""
    for name in options:
        if name not in Options.model_fields:
            raise BadRequestError(
                f"the model tinker-local has no argument {name!r}. Name the model with model=NAME; "
                f"the others are {', '.join([*others, *Options.model_fields])}"
            )


def length_limit(max_length: int | None, client: SamplingClient) -> int:
    """Return how many tokens a model reads at most to predict one more, ``max_length`` if that is given.

    Raises:
        BadRequestError: the context is not larger than that.
    """
    n_ctx = client.n_ctx
    if max_length is None:
        return n_ctx - 1
    if checks.integer(max_length, "max_length", 1) >= n_ctx:
        raise BadRequestError(
            f"max_length is {max_length}, and the context holds {n_ctx} tokens, of which one is predicted: "
            f"it is at most {n_ctx - 1}; give a larger n_ctx (up to what the model was trained for)"
        )
    return max_length


__all__ = ["length_limit", "open_model", "refuse_unknown"]
