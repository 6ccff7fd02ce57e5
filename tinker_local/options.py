"""How a model is opened: what ``ServiceClient`` takes, what the environment may set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tinker_local.errors import BadRequestError

ENVIRONMENT_PREFIX = "TINKER_LOCAL_"

KvType = Literal["f16", "f32", "q8_0"]
LogprobsMode = Literal["sampling", "raw"]


class Options(BaseModel):
    """Options of a local run, under the names llama.cpp users know.

    Each can be given to ``ServiceClient``, set as ``TINKER_LOCAL_<NAME>`` in the environment (empty
    means unset), or given on the command line; the first one given in this order counts.

    Attributes:
        n_ctx: tokens the KV cache holds, shared by all running requests; also the most tokens of one
            request, unless the model was trained for fewer. None: the model's training context, at
            most 8,192.
        n_threads: threads llama.cpp computes with. None: the physical cores.
        n_gpu_layers: layers kept on the GPU by Metal and CUDA builds of llama-cpp-python; -1 for all.
        kv_type: number format of the KV cache. "q8_0" halves its memory and needs flash attention.
        flash_attn: True or False; None lets llama.cpp decide.
        logprobs_mode: "sampling" reports sampled tokens under the distribution they were drawn from,
            "raw" under the plain model's.
        models_dir: where GGUF files are found by name. None: ``models/`` in a checkout, else a
            directory of the user's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_ctx: int | None = Field(default=None, ge=1, le=2**31 - 1)
    n_threads: int | None = Field(default=None, ge=1, le=512)
    n_gpu_layers: int = Field(default=-1, ge=-1)
    kv_type: KvType = "f16"
    flash_attn: bool | None = None
    logprobs_mode: LogprobsMode = "sampling"
    models_dir: Path | None = None

    @model_validator(mode="after")
    def _check_together(self) -> Options:
        if self.kv_type == "q8_0" and self.flash_attn is False:
            raise ValueError("kv_type='q8_0' needs flash attention, and flash_attn is False")
        return self

    @classmethod
    def resolve(cls, given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Options:
        """Merge what was given (None: not given) over the environment over the defaults.

        Raises:
            BadRequestError: a value is of the wrong type or out of range; the message names it.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for name in cls.model_fields:
            value = given.get(name)
            if value is None:
                value = environment.get(ENVIRONMENT_PREFIX + name.upper()) or None
            if value is not None:
                values[name] = value
        try:
            return cls(**values)
        except ValidationError as error:
            raise BadRequestError(_describe(error)) from None


def _describe(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"]))
        said = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{name} is {problem['input']!r}: {said}" if name else said)
    return "; ".join(problems)


__all__ = ["KvType", "LogprobsMode", "Options"]
