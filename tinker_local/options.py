"""How a model is opened: what ``ServiceClient`` takes, what the environment may set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tinker_local.errors import BadRequestError, shown

ENVIRONMENT_PREFIX = "TINKER_LOCAL_"

KvType = Literal["f16", "f32", "q8_0"]
LogprobsMode = Literal["sampling", "raw"]


class Options(BaseModel):
    """Options of a local run, under the names llama.cpp users know.

    Each can be given to ``ServiceClient``, set as ``TINKER_LOCAL_<NAME>`` in the environment (empty
    means unset), or given on the command line; the first one given in this order counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_ctx: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="Tokens the KV cache holds, shared by all running requests; also the most tokens of "
        "one request, unless the model was trained for fewer. Unset: the training context, at most 8192.",
    )
    n_threads: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="Threads llama.cpp computes with. Unset: the physical cores.",
    )
    n_gpu_layers: int = Field(
        default=-1,
        ge=-1,
        description="Layers kept on the GPU by Metal and CUDA builds of llama-cpp-python. Unset: all (-1).",
    )
    devices: str | None = Field(
        default=None,
        min_length=1,
        description="Devices to compute on besides the CPU: llama.cpp's names with commas between, such as "
        "CUDA0,CUDA1, or none for the CPU alone. Unset: all there are.",
    )
    n_ubatch: int | None = Field(
        default=None,
        ge=192,  # 64 running samples and two chunks of a prompt: with less a prompt could wait for ever
        le=2**16,
        description="Tokens computed at once, at least 192. More can be faster on a GPU and needs more "
        "memory. Unset: 512.",
    )
    kv_offload: bool = Field(
        default=True,
        description="Keep the KV cache on the device of its layer. Without, it stays in main memory.",
    )
    kv_type: KvType = Field(
        default="f16",
        description="Number format of the KV cache. q8_0 halves its memory and needs flash attention.",
    )
    flash_attn: bool | None = Field(
        default=None, description="Use flash attention. Unset: llama.cpp decides."
    )
    logprobs_mode: LogprobsMode = Field(
        default="sampling",
        description="Report sampled tokens under the distribution they were drawn from (sampling), or "
        "under the plain model's (raw).",
    )
    prefix_cache: bool = Field(
        default=True,
        description="Keep what is finished in the KV cache until the room is needed, and start from the "
        "longest prefix there. Without, a request on an idle engine gives the same bits each time.",
    )
    batch_invariant: bool = Field(
        default=False,
        description="Give every request the same bits as if it ran alone, and sampled tokens those of "
        "compute_logprobs, on the CPU. n_ctx is then the tokens of each running sequence; there are "
        "as many of these as fit a share of the memory.",
    )
    n_contexts: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="KV caches kept in memory, one for each model or adapter that was opened. Beyond it, "
        "those idle longest are released, and made again on use. Unset: as many as fit half of the memory "
        "that the weights leave, at least 2.",
    )
    max_memory_mb: int | None = Field(
        default=None,
        ge=1,
        le=2**40,
        description="Main memory, in MB, that weights and KV caches may take in this process. What does "
        "not fit is refused before it is loaded. Unset: the machine's, for KV caches what is free.",
    )
    max_queue_mb: int | None = Field(
        default=None,
        ge=1,
        le=2**40,
        description="Main memory, in MB, that the unfinished requests of a model may take; more are "
        "refused. So is a request whose answer alone could take more. Unset: an eighth of the machine's.",
    )
    models_dir: Path | None = Field(
        default=None,
        description="Where GGUF files are found by name. Unset: models/ in a checkout, else a directory "
        "of the user's.",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Options:
        if self.kv_type == "q8_0" and self.flash_attn is False:
            raise ValueError("kv_type='q8_0' needs flash attention, and flash_attn is False")
        if self.batch_invariant and (self.flash_attn is not None or self.kv_type == "q8_0"):
            raise ValueError(
                "batch_invariant chooses how attention is computed itself; leave out "
                + ("kv_type='q8_0'" if self.flash_attn is None else f"flash_attn={self.flash_attn}")
            )
        return self

    @field_validator("models_dir")
    @classmethod
    def _expand(cls, path: Path | None) -> Path | None:
        return path and path.expanduser()

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
        problems.append(f"{name} is {shown(problem['input'])}: {said}" if name else said)
    return "; ".join(problems)


__all__ = ["KvType", "LogprobsMode", "Options"]
