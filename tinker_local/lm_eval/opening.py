"""Open a model by the harness's ``model_args``."""

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
    """Open a model; without ``model`` the base that the adapter names, or the default model.

    Raises:
        BadRequestError: an option has an impossible value, or a file cannot be used.
        NotFoundError: no model or adapter has this name.
    """
    base = None if model is None else str(model)  # the harness parses a name such as 7 as a number
    if base is None and adapter is None:
        base = ModelStore.default_name
    return ServiceClient(**options).create_sampling_client(adapter, base, lora_scale=lora_scale)


def refuse_unknown(options: Mapping[str, Any], others: Iterable[str]) -> None:
    """Refuse names that are not options of ``ServiceClient``.

    Args:
        options: the options given.
        others: further arguments of the model, for the message.

    Raises:
        BadRequestError: a name is unknown; the message lists all names.
    """
    for name in options:
        if name not in Options.model_fields:
            raise BadRequestError(
                f"the model tinker-local has no argument {name!r}; use model=NAME for the model, or "
                f"{', '.join([*others, *Options.model_fields])}"
            )


def length_limit(max_length: int | None, client: SamplingClient) -> int:
    """Return the most tokens that the model reads: ``max_length``, or what the context holds.

    Raises:
        BadRequestError: ``max_length`` is larger than the context.
    """
    n_ctx = client.n_ctx
    if max_length is None:
        return n_ctx
    if checks.integer(max_length, "max_length", 1) > n_ctx:
        raise BadRequestError(
            f"max_length is {max_length}, and the context holds {n_ctx} tokens; give a larger n_ctx (up to "
            "what the model was trained for)"
        )
    return max_length


__all__ = ["length_limit", "open_model", "refuse_unknown"]
