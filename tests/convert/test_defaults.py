"""Settings that config.json leaves out have the defaults of transformers' configuration class.

The numbers are those of transformers 5; ``tests/parity/test_defaults.py`` compares all of them.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from convert import UnsupportedError, convert_checkpoint
from convert.architectures import find_architecture
from convert.errors import ConversionWarning
from convert.source.config import Config
from convert.source.tensor import SourceTensor
from tests.convert.expected import read_gguf
from tests.random_checkpoints.plain import write_llama
from tests.random_checkpoints.plans import Zeros

LENGTH, EPSILON = "context_length", "attention.layer_norm_rms_epsilon"
KV, HEAD, WIDTH = "attention.head_count_kv", "attention.key_length", "embedding_length"
MAMBA = {"layers_block_type": ["mamba", "attention", "mlp"]}
ROUTED = {"norm_topk_prob": True}
WINDOWED = {"num_hidden_layers": 64}


def metadata(name: str, **settings: Any) -> dict[str, Any]:
    """Return what a family makes of a config.json with these settings alone."""
    embedding: dict[str, SourceTensor] = {
        f"{prefix}embed_tokens.weight": SourceTensor("", (129280, 7168), "BF16", Path(), 0)
        for prefix in ("model.", "model.language_model.", "language_model.model.")
    }
    learned = {
        f"model.layers.{i}.mlp.act_fn.{number}": Zeros("", (1,), "F32", Path(), 0)
        for i in range(32 if name.startswith("Apertus") else 0)
        for number in ("alpha_n", "alpha_p", "beta", "eps")
    }
    model = find_architecture(name)(Config(settings), embedding | learned)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        values = dict(model.metadata())
    model.config.refuse_unread()
    return values


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("LlamaForCausalLM", {}, {LENGTH: 2048, EPSILON: 1e-6, WIDTH: 4096, KV: 32, HEAD: 128}),
        ("MistralForCausalLM", {}, {LENGTH: 4096, EPSILON: 1e-6, KV: 8, "feed_forward_length": 14336}),
        ("MistralForCausalLM", {"sliding_window": None}, {LENGTH: 131072}),
        ("SmolLM3ForCausalLM", {}, {LENGTH: 32768, EPSILON: 1e-6, KV: 4, "rope.freq_base": 2e6}),
        ("Qwen2ForCausalLM", {}, {LENGTH: 32768, EPSILON: 1e-6, KV: 32}),
        ("Qwen3ForCausalLM", {}, {LENGTH: 32768, EPSILON: 1e-6, KV: 32, HEAD: 128}),
        ("Qwen3ForCausalLM", {"head_dim": None, "hidden_size": 2048}, {HEAD: 64}),
        ("Qwen3MoeForCausalLM", ROUTED, {LENGTH: 32768, KV: 4, HEAD: 64, "expert_count": 128}),
        ("Qwen3MoeForCausalLM", ROUTED | {"num_local_experts": 16}, {"expert_count": 16}),
        ("Gemma2ForCausalLM", {}, {LENGTH: 8192, EPSILON: 1e-6, "attention.sliding_window": 4096}),
        ("Gemma3ForCausalLM", {}, {LENGTH: 131072, EPSILON: 1e-6, "rope.freq_base": 1e6}),
        ("GPT2LMHeadModel", {}, {LENGTH: 1024, "attention.layer_norm_epsilon": 1e-5, WIDTH: 768}),
        ("GPT2LMHeadModel", {"hidden_size": 64, "num_hidden_layers": 2}, {WIDTH: 64, "block_count": 2}),
        ("GPT2LMHeadModel", {"n_ctx": 256}, {LENGTH: 256}),
        ("GptOssForCausalLM", {}, {LENGTH: 131072, EPSILON: 1e-5, "rope.scaling.factor": 32.0}),
        ("GptOssForCausalLM", {"num_experts": 8}, {"expert_count": 8, "expert_used_count": 4}),
        ("Olmo2ForCausalLM", {}, {LENGTH: 2048, EPSILON: 1e-5}),
        ("Phi3ForCausalLM", {}, {LENGTH: 4096, EPSILON: 1e-5}),
        ("NemotronHForCausalLM", MAMBA, {LENGTH: 4096, KV: [0, 8, 0], "ssm.group_count": 8}),
        ("NemotronHForCausalLM", MAMBA | {"mamba_n_groups": 2}, {"ssm.group_count": 2}),
        ("NemotronHForCausalLM", {"layer_types": ["mamba"]}, {"block_count": 1}),
        ("Qwen3_5ForCausalLM", {}, {LENGTH: 32768, EPSILON: 1e-6, "ssm.state_size": 128}),
        ("Qwen3_5MoeForCausalLM", {}, {"expert_count": 256, "expert_feed_forward_length": 512}),
        ("ApertusForCausalLM", {}, {LENGTH: 65536, "rope.freq_base": 12e6}),
        ("Ernie4_5_MoeForCausalLM", {"num_experts": 8}, {"expert_count": 8, KV: 4, "rope.freq_base": 5e5}),
        ("Glm4MoeForCausalLM", {}, {"expert_count": 128, "rope.dimension_count": 21}),
        ("HunYuanMoEV1ForCausalLM", {"num_experts_per_tok": 1}, {"expert_count": 1}),
        ("MiniMaxM2ForCausalLM", {}, {LENGTH: 196608, HEAD: 128, "rope.freq_base": 5e6}),
        ("Olmo3ForCausalLM", {}, {"attention.sliding_window": 4096, "rope.freq_base": 5e5}),
        ("Qwen3VLForConditionalGeneration", {}, {LENGTH: 128000, "rope.freq_base": 5e5}),
        ("SeedOssForCausalLM", {}, {KV: 8, HEAD: 128}),
        ("Starcoder2ForCausalLM", {}, {LENGTH: 4096, "attention.layer_norm_epsilon": 1e-5}),
        ("DeepseekV3ForCausalLM", {}, {"expert_group_count": 8, "expert_group_used_count": 4}),
        ("DeepseekV3ForCausalLM", {}, {LENGTH: 4096, EPSILON: 1e-6, "attention.q_lora_rank": 1536}),
        ("DeepseekV3ForCausalLM", {"q_lora_rank": None}, {"attention.q_lora_rank": 0}),
    ],
)
def test_what_is_left_out(name: str, settings: dict[str, Any], expected: dict[str, Any]) -> None:
    found = metadata(name, **settings)
    assert {key: found[key] for key in expected} == expected


def test_experts_that_are_not_normalised_by_default() -> None:
    with pytest.raises(UnsupportedError, match="norm_topk_prob is False"):
        metadata("Qwen3MoeForCausalLM")


def test_a_file_without_length_and_epsilon(tmp_path: Path) -> None:
    write_llama(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    config = json.loads(path.read_text())
    for key in ("max_position_embeddings", "rms_norm_eps", "rope_theta"):
        del config[key]
    path.write_text(json.dumps(config))
    fields, _ = read_gguf(convert_checkpoint(tmp_path / "m", tmp_path / "m.gguf", verify=False))
    assert fields["llama.context_length"] == 2048
    assert fields["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert fields["llama.rope.freq_base"] == 10000
