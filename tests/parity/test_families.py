"""Every family as a random checkpoint: the GGUF file computes what transformers computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convert.model import ModelPlan
from convert.source.checkpoint import SourceCheckpoint
from tests.random_checkpoints.plans import read, stored

pytestmark = pytest.mark.parity

try:
    from tests.parity.families import all_cases, measure
except ImportError as error:  # torch and transformers are an extra
    CASES: list[Any] = []
    MISSING = str(error)
else:
    CASES, MISSING = all_cases(), ""


def test_there_are_cases() -> None:
    if MISSING:
        pytest.skip(MISSING)
    assert {case.family for case in CASES} >= {
        "llama",
        "qwen",
        "gemma",
        "phi3",
        "olmo2",
        "gpt2",
        "nemotron_h",
        "qwen3moe",
        "qwen35",
        "gptoss",
        "deepseek",
        "qwen3vl",
        "qwen2moe",
        "seed_oss",
        "apertus",
        "ernie4_5",
        "hunyuan",
        "exaone4",
        "glm4moe",
        "minimax_m2",
        "starcoder2",
        "granite",
        "lfm2",
        "ministral3",
        "mistral4",
        "deepseek4",
        "gemma3n",
        "gemma4",
        "glm5_next",
        "falcon_h1",
        "qwen3next",
        "deepseek_sparse",
        "kimi_linear",
        "granite_hybrid",
        "llama4",
    }


OTHERWISE: dict[str, dict[str, Any]] = {
    "llama, yarn with its own strength": {
        "rope.scaling.attn_factor": 1.0,
        "rope.scaling.original_context_length": 512,
    },
    "gemma, Gemma 2, tight caps, transformers 4": {
        "attention.sliding_window": 17,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma, Gemma 3, linear scaling, transformers 4": {
        "attention.sliding_window": 17,
        "rope.freq_base": 1e4,
        "rope.freq_base_swa": 1e6,
        "rope.scaling.factor": 2.0,
    },
    "phi3, Phi-4, tied, three quarters turn": {"rope.dimension_count": 16},
    "phi3, long-rope, beyond": {
        "rope.scaling.attn_factor": 1.0,
        "rope.scaling.original_context_length": 512,
    },
    "nemotron_h, experts in a latent space, groups": {
        "expert_group_used_count": 3,
        "expert_weights_norm": False,
        "expert_weights_scale": 2.0,
    },
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in OTHERWISE.items() for key in keys])
def test_a_wrong_setting_would_be_seen(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The differences that are tolerated above are far below what a setting does."""
    if MISSING:
        pytest.skip(MISSING)
    (case,) = (case for case in CASES if str(case) == name)
    right = ModelPlan.of

    def wrong(checkpoint: SourceCheckpoint, change: Any = None) -> ModelPlan:
        model = right(checkpoint, change)
        full = f"{model.architecture}.{key}"
        assert full in model.metadata
        return replace(model, metadata={**model.metadata, full: OTHERWISE[name][key]})

    monkeypatch.setattr(ModelPlan, "of", wrong)
    assert measure(case, tmp_path).largest > 1000 * case.tolerance


@pytest.mark.parametrize("case", CASES, ids=str)
def test_log_probabilities_and_greedy_text(case: Any, tmp_path: Path) -> None:
    found = measure(case, tmp_path)
    assert found.largest <= case.tolerance, case.reason
    assert found.same_greedy
    if str(case) in (plans := stored()):
        assert read(tmp_path / "checkpoint") == plans[str(case)], "python -m tests.random_checkpoints.plans"
