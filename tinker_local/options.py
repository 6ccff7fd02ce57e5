"""How a model is opened: each option's name, default, range and description, written once.

The descriptions are the help of the command line. ``python -m tests.api_page`` makes ``ServiceClient``'s
docstring and the table in README.md of them; a test compares. Each ends in "Unset: " and the default.
"""

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

    An option is an argument of ``ServiceClient``, a flag of the command line (``--n-ctx``) or of lm-eval's
    ``--model_args``, or a variable in the environment (``TINKER_LOCAL_N_CTX``; empty means unset). The
    environment counts where neither of the others says anything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_ctx: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="Size of the KV cache in tokens. All running requests share it. One request has at "
        "most this many tokens, and at most as many as the model was trained for. Unset: the model's "
        "training context, at most 8192.",
    )
    n_threads: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="CPU threads that compute a token of one sample, where nothing else runs. Unset: one "
        "for each physical core, and no more than the CPUs that a container may use.",
    )
    n_threads_batch: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="CPU threads that compute several tokens at once: of prompts, or of many samples. "
        "Unset: n_threads.",
    )
    n_gpu_layers: int = Field(
        default=-1,
        ge=-1,
        description="Layers on the GPU, in Metal and CUDA builds of llama-cpp-python; -1 means all. "
        "Unset: -1.",
    )
    devices: str | None = Field(
        default=None,
        min_length=1,
        description="Devices to compute on besides the CPU: llama.cpp's names, separated by commas, as "
        'in "CUDA0,CUDA1"; "none" means the CPU alone. Unset: all devices.',
    )
    n_ubatch: int | None = Field(
        default=None,
        ge=192,  # 64 running samples and two chunks of a prompt: with less a prompt could wait for ever
        le=2**16,
        description="Tokens computed in one micro-batch, at least 192. More can be faster on a GPU and "
        "needs more memory. Unset: 512.",
    )
    kv_offload: bool = Field(
        default=True,
        description="Keep the KV cache on the device of its layer. If False, main memory holds it. "
        "Unset: True.",
    )
    kv_type: KvType = Field(
        default="f16",
        description='Number format of the KV cache: "f16", "f32" or "q8_0". "q8_0" halves the memory of '
        '"f16" and needs flash attention. Unset: f16.',
    )
    flash_attn: bool | None = Field(
        default=None,
        description="Use flash attention. On a CPU the kernel is our own, and False takes llama.cpp's "
        "attention in steps. Unset: our own on a CPU, elsewhere llama.cpp decides; in steps for models "
        "that choose their keys.",
    )
    logprobs_mode: LogprobsMode = Field(
        default="sampling",
        description='Log-probabilities of sampled tokens: "sampling" reports those of the distribution '
        'they were drawn from, "raw" those of the unmodified model. Unset: sampling.',
    )
    prefix_cache: bool = Field(
        default=True,
        description="Keep finished requests in the KV cache until the room is needed. A new request then "
        "starts from the longest prefix in the cache. If False, a request on an idle engine gives the "
        "same bits each time. Unset: True.",
    )
    batch_invariant: bool = Field(
        default=False,
        description="Give every request the same bits as if it ran alone, on the CPU, or refuse the "
        "model. compute_logprobs then repeats the log-probabilities of sampled tokens exactly. With AVX2 "
        "both hold without it too, where our kernels compute everything: see doctor. Unset: False.",
    )
    n_contexts: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="KV caches kept in memory, one for each model or adapter that was opened. Beyond this "
        "number those idle longest are released, and made again on use. Unset: as many as fit half of the "
        "memory that the weights leave, at least 2.",
    )
    max_memory_mb: int | None = Field(
        default=None,
        ge=1,
        le=2**40,
        description="Main memory, in MB, for the weights and KV caches of this process. A model that does "
        "not fit is refused before it is loaded. Unset: the machine's memory; for KV caches, what is free.",
    )
    max_queue_mb: int | None = Field(
        default=None,
        ge=1,
        le=2**40,
        description="Main memory, in MB, for the unfinished requests of a model. A request beyond it gets "
        "a RateLimitError; one whose answer alone could take more, a BadRequestError. Unset: an eighth of "
        "the machine's memory.",
    )
    models_dir: Path | None = Field(
        default=None,
        description="Directory in which GGUF files are found by name. Unset: models/ in a checkout, else a "
        "directory of the user's.",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Options:
        if self.kv_type == "q8_0" and self.flash_attn is False:
            raise ValueError("kv_type='q8_0' needs flash attention; leave out flash_attn=False")
        if self.batch_invariant and self.flash_attn is False:
            raise ValueError("batch_invariant needs our own attention; leave out flash_attn=False")
        return self

    @field_validator("models_dir")
    @classmethod
    def _expand(cls, path: Path | None) -> Path | None:
        return path and path.expanduser()

    @classmethod
    def resolve(cls, given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Options:
        """Return the options: what is given (None: not given), else the environment's, else the default.

        Keys of ``given`` that are no options are passed over.

        Raises:
            BadRequestError: a value has the wrong type or is out of range; the message names both.
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
