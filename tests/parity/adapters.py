"""How near base and adapter come to transformers with the update merged, as a printed table.

python -m tests.parity.adapters [PART OF A NAME]
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from convert import UnsupportedError, convert_adapter, convert_checkpoint
from tests.parity.families import _load, _logprobs, _random_tokens, all_cases
from tests.parity.lora import RandomLora, merge, peft_lora, tinker_lora
from tests.random_checkpoints.case import REFERENCE, Case
from tinker_local import ModelInput, ServiceClient

TOLERANCE = 1e-3
"""The issue's; an adapter's own effect must be 100 times as much."""

LAYOUTS = {"tinker": tinker_lora, "peft": peft_lora}
LATENT = ("q_a_proj", "q_b_proj", "q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "lm_head")
INDEXER = ("wq_b", "wk", "weights_proj")
DELTA = ("k_proj", "v_proj", "o_proj", "f_a_proj", "f_b_proj", "b_proj", "g_a_proj", "g_b_proj")
SPARSE = (*LATENT, *INDEXER)
PROJECTIONS = tuple(
    f"{name}.{i}" for name in ("altup_projections", "altup_unembed_projections") for i in range(3)
)


@dataclass(frozen=True)
class Trial:
    """A case of the families' table, and which modules are left out of its adapter, by their names' ends.

    Attributes:
        unfit: llama.cpp applies no LoRA to these: they are in the merged model's adapter alone.
        never: no file for llama.cpp can hold these.
    """

    case: str
    unfit: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    seed: int = 7

    def __str__(self) -> str:
        return self.case


TRIALS = (
    Trial("llama, grouped queries"),
    Trial("llama, tied, biases"),
    Trial("llama, SmolLM3"),
    Trial("qwen, Qwen2"),
    Trial("qwen, Qwen3, tied, yarn, transformers 4"),
    Trial("gemma, Gemma 2, window of 16", never=("lm_head",)),
    Trial("gemma, Gemma 3, window of 16"),
    Trial("gemma, Gemma 3 with vision, transformers 4"),
    Trial("phi3, Phi-3"),
    Trial("phi3, Phi-4, tied, three quarters turn"),
    Trial("olmo2, grouped queries"),
    Trial("olmo2, tied, transformers 4"),
    Trial("gpt2, tied"),
    Trial("gpt2, untied, own inner size"),
    Trial("nemotron_h, Mamba, attention, MLP"),
    Trial("nemotron_h, experts in a latent space, groups", ("fc1_latent_proj", "fc2_latent_proj")),
    Trial("qwen3moe, experts one by one"),
    Trial("qwen3moe, fused experts"),
    Trial("qwen3moe, tied"),
    Trial("qwen35, dense, tied, transformers 4"),
    Trial("qwen35, dense, with vision"),
    # 7 and 9 make llama.cpp's own rounding count: what transformers has merged differs as much
    Trial("qwen35, fused experts", seed=10),
    Trial("gptoss, plain experts, tied"),
    Trial("gptoss, MXFP4 unpacked"),
    Trial("deepseek, 4 groups of experts", LATENT),
    Trial("deepseek, rotated halves", LATENT),
    Trial("deepseek, FP8 blocks", LATENT),
    Trial("deepseek, Kimi-K2.5, INT4 unpacked", LATENT),
    Trial("qwen3vl, experts"),
    Trial("qwen2moe, experts"),
    Trial("olmo2, OLMoE"),
    Trial("gemma, Gemma 1", never=("lm_head",)),
    Trial("seed_oss, biases"),
    Trial("apertus, tied, biases"),
    Trial("ernie4_5, experts"),
    Trial("hunyuan, experts"),
    Trial("exaone4, no windows"),
    Trial("glm4moe, norms of heads, biases, groups"),
    Trial("minimax_m2, half of each head turns"),
    Trial("granite, tied, biases"),
    Trial("granite, experts and a shared one"),
    Trial("lfm2, experts"),
    Trial("ministral3, scaled queries"),
    Trial("deepseek4, each kind of layer", ("o_a_proj", "lm_head")),
    Trial("glm5_next, with vision", (*SPARSE, "q_proj", *DELTA)),
    Trial("gemma4, shared caches, embeddings for each layer", ("per_layer_model_projection",)),
    Trial("gemma4, experts, keys that are values", ("experts",)),
    Trial("gemma3n, five layers", ("modality_router", "per_layer_model_projection", *PROJECTIONS)),
    Trial("nemotron_h, 3.5 Lightning"),
    Trial("qwen35, Qwen3.6 and 3.8, dense, with vision"),
    Trial("mistral4, scaled queries", LATENT),
    Trial("falcon_h1, multipliers"),
    Trial("qwen3next, experts"),
    Trial("deepseek_sparse, DeepSeek-V3.2", SPARSE),
    Trial("deepseek_sparse, GLM-5, shared choices", SPARSE),
    Trial("kimi_linear, fused, epsilon of 1e-6", (*LATENT, *DELTA)),
    Trial("granite_hybrid, experts"),
    Trial("granite_hybrid, dense, rotated, tied"),
    Trial("llama4, every other layer dense, tied"),
    Trial("starcoder2, untied, no biases"),
)


@dataclass(frozen=True)
class Parity:
    """The largest difference of a log-probability from transformers', and what the adapter changes."""

    gap: float
    effect: float


@dataclass(frozen=True)
class Found:
    """What was measured of one adapter.

    Attributes:
        merged, run_time: of the whole model, and of base and adapter.
        refusal: what was said of the modules that llama.cpp applies no LoRA to; "" if there are none.
        same_tensors: whether the adapter is the same made for the base's file and for its directory.
    """

    merged: Parity
    run_time: Parity
    refusal: str
    same_tensors: bool


def find_case(name: str) -> Case:
    """Return the case of this name."""
    (case,) = (case for case in all_cases() if str(case) == name)
    return case


@dataclass(frozen=True)
class Base:
    """A trial's checkpoint: written, loaded by transformers and converted once for all layouts.

    Attributes:
        reference: transformers' model; adapters are merged into copies.
        plain: its log-probabilities of ``tokens``.
        converted: the GGUF file, at float32.
    """

    trial: Trial
    case: Case
    source: Path
    reference: Any
    tokens: list[int]
    plain: Any
    converted: Path

    @classmethod
    def of(cls, trial: Trial, directory: Path) -> Base:
        case, source = find_case(trial.case), directory / "checkpoint"
        case.write(source)
        model = _load(source / REFERENCE if (source / REFERENCE).exists() else source)
        if case.change:
            case.change(model)
        tokens = _random_tokens(model.get_input_embeddings().weight.shape[0], case.n_tokens)
        converted = convert_checkpoint(source, directory / "base.gguf", outtype="f32", verify=False)
        if case.unpacks:
            converted = convert_checkpoint(converted, directory / "unpacked.gguf", outtype="f32")
        return cls(trial, case, source, model, tokens, _logprobs(model, tokens), converted)

    def compare(self, lora: RandomLora, model: Path, adapter: Path | None = None) -> Parity:
        adapted = copy.deepcopy(self.reference)
        merge(adapted, lora.added)
        expected = _logprobs(adapted, self.tokens)
        found = score(self.case, self.tokens, model, adapter)
        return Parity(float(np.abs(found - expected).max()), float(np.abs(expected - self.plain).max()))


def measure(base: Base, layout: str, directory: Path) -> Found:
    """Make an adapter in a layout, convert it at float32, score it merged and beside its base."""
    make, trial = LAYOUTS[layout], base.trial
    lora = make(base.reference, chooser(trial.never), trial.seed)
    given = lora.write(directory / "whole")
    whole = convert_adapter(
        given, base.source, directory / "merged.gguf", merge=True, outtype="f32", verify=False
    )
    merged, refusal = base.compare(lora, whole), ""
    if trial.unfit:
        try:
            convert_adapter(given, base.converted, directory / "lora.gguf")
        except UnsupportedError as error:
            refusal = str(error)
        lora = make(base.reference, chooser((*trial.never, *trial.unfit)), trial.seed)
        given = lora.write(directory / "part")
    by_file = convert_adapter(given, base.converted, directory / "by-file.gguf")
    by_directory = convert_adapter(given, base.source, directory / "by-directory.gguf")
    run_time = base.compare(lora, base.converted, by_file)
    return Found(merged, run_time, refusal, same_tensors(by_file, by_directory))


def chooser(without: tuple[str, ...]) -> Callable[[str], bool]:
    """Return whether a module is taken, by its name."""
    return lambda name: not name.endswith(without) if without else True


def score(case: Case, tokens: list[int], base: Path, adapter: Path | None = None) -> Any:
    """Return log-probabilities with a float32 cache."""
    with ServiceClient(n_ctx=case.n_ctx, kv_type="f32", prefix_cache=False, **case.options) as service:
        client = service.create_sampling_client(adapter and str(adapter), base_model=str(base))
        return np.array(client.compute_logprobs(ModelInput.from_ints(tokens)).result()[1:])


def same_tensors(one: Path, other: Path) -> bool:
    """Whether two files have the same tensors, bit for bit."""
    a, b = ({t.name: t.data for t in gguf.GGUFReader(path).tensors} for path in (one, other))
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def main(wanted: str = "") -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| base | layout | run time | effect | merged | effect | only merged |")
    print("|---|---|---|---|---|---|---|")
    for trial in TRIALS:
        if wanted in str(trial):
            with tempfile.TemporaryDirectory() as directory:
                base = Base.of(trial, Path(directory))
                for layout in LAYOUTS:
                    _print_row(trial, layout, measure(base, layout, Path(directory, layout)))


def _print_row(trial: Trial, layout: str, found: Found) -> None:
    run_time, merged = (f"{p.gap:.1e} | {p.effect:.1f}" for p in (found.run_time, found.merged))
    print(f"| {trial} | {layout} | {run_time} | {merged} | {', '.join(trial.unfit)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
