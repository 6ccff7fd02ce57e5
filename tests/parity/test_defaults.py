"""Settings left out: each family's defaults are those of transformers' configuration class."""

from __future__ import annotations

from typing import Any

import pytest

from convert.architectures import FAMILIES, Architecture
from tests.convert.test_defaults import MAMBA, ROUTED, WINDOWED, metadata

pytestmark = pytest.mark.parity

CONFIGS = {
    "DeepseekV3ForCausalLM": "DeepseekV3Config",
    "GPT2LMHeadModel": "GPT2Config",
    "Gemma3ForCausalLM": "Gemma3TextConfig",
    "Gemma3nForCausalLM": "Gemma3nTextConfig",
    "Gemma4ForCausalLM": "Gemma4TextConfig",
    "Glm5NextForConditionalGeneration": "Glm5NextTextConfig",
    "KimiK25ForConditionalGeneration": "DeepseekV3Config",
    "Llama4ForConditionalGeneration": "Llama4TextConfig",
    "NemotronH_Omni_Reasoning_V3": "NemotronHConfig",
    "Qwen3VLForConditionalGeneration": "Qwen3VLTextConfig",
    "Qwen3VLMoeForConditionalGeneration": "Qwen3VLMoeTextConfig",
    "Qwen3_5ForConditionalGeneration": "Qwen3_5TextConfig",
    "Qwen3_5MoeForConditionalGeneration": "Qwen3_5MoeTextConfig",
}
OURS_ALONE = {"full_attention_interval", "intermediate_size", "n_ctx", "norm_topk_prob"}
OURS_ALONE |= {
    "num_nextn_predict_layers",
    "first_k_dense_replace",
    "global_head_dim",
    "n_routed_experts",
    "rope_interleave",
    "shared_intermediate_size",
}
"""Settings without an attribute in the class: read on the way, or sizes that a family does not have."""
BOTH = ["linear_attention", "full_attention"]
NEEDED = {
    "Exaone4ForCausalLM": WINDOWED,
    "GraniteMoeHybridForCausalLM": {"num_hidden_layers": 2, "layer_types": BOTH},
    "Lfm2ForCausalLM": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "Lfm2MoeForCausalLM": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "NemotronHForCausalLM": MAMBA,
    "NemotronH_Omni_Reasoning_V3": MAMBA,
    "Qwen3MoeForCausalLM": ROUTED,
}


def configuration(family: type[Architecture]) -> Any:
    transformers = pytest.importorskip("transformers")
    name = family.names[0]
    return getattr(transformers, CONFIGS.get(name, name.replace("ForCausalLM", "Config")))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_each_default(family: type[Architecture]) -> None:
    theirs = configuration(family)()
    theirs.allow_global_per_layer_attribute_access = True
    for key, value in family.defaults.items():
        if hasattr(theirs, key) or key not in OURS_ALONE:
            # Qwen's classes set the window to None where use_sliding_window is false, their default
            assert value in (getattr(theirs, key), getattr(type(theirs), key, None)), key
    for other, own in family.aliases.items():
        if hasattr(theirs, other) and hasattr(theirs, own):
            assert getattr(theirs, other) == getattr(theirs, own), other


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_nothing_said_is_everything_said(family: type[Architecture]) -> None:
    """No default is forgotten: the file of an empty config.json is that of all settings written out."""
    name = family.names[0]
    needed = NEEDED.get(name, {})
    explicit = configuration(family)(**needed).to_dict() | needed
    assert metadata(name, **needed) == metadata(name, **explicit)
