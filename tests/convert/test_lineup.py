"""The families of ``tests/random_checkpoints/lineup.py`` without torch: tensors, settings, what is refused.

The plans in ``plans.jsonl`` are of checkpoints whose files score as transformers does. The parity tests
hold both together.
"""

from __future__ import annotations

import warnings
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convert.adapters.blueprint import read_blueprint
from convert.architectures import find_architecture
from convert.errors import CheckpointError, ConversionWarning, UnsupportedError
from convert.gguf.head import Value
from convert.gguf.target import Target
from convert.source.config import Config
from tests.convert import published_lineup as published
from tests.random_checkpoints.plans import Zeros, plan, stored

Settings = dict[str, Any]
PLANS = stored()


@pytest.mark.parametrize("name", PLANS)
def test_plans(name: str) -> None:
    row = PLANS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        found = plan(row["architecture"], row["settings"], row["shapes"])
    assert found["metadata"] == row["metadata"]
    assert found["targets"] == row["targets"]
    family = find_architecture(row["architecture"], row["settings"].get("model_type"))
    kept = [n for n in found["unused"] if not any(fnmatchcase(n, p) for p in family.ignored)]
    assert set(kept) <= {"lm_head.weight"}, "a tensor with numbers has no place"


def metadata_of(settings: Settings) -> dict[str, Value]:
    family = find_architecture(settings["architectures"][0], settings.get("model_type"))
    numbers = [
        f"model.layers.{i}.mlp.act_fn.{name}"
        for i in range(settings["num_hidden_layers"])
        for name in ("alpha_n", "alpha_p", "beta", "eps")
    ]
    shapes = dict.fromkeys(numbers, (1,)) | {"model.embed_tokens.weight": (settings["vocab_size"], 1)}
    made = family(Config(settings), {n: Zeros(n, shape, "F32", Path(), 0) for n, shape in shapes.items()})
    values = made.metadata()
    made.config.refuse_unread()
    return {made.full_key(key): value for key, value in values.items()}


PUBLISHED: list[tuple[Settings, dict[str, Value]]] = [
    (
        published.QWEN3_VL_4B,
        {
            "qwen3vl.rope.dimension_sections": [22, 21, 21, 0],
            "qwen3vl.rope.freq_base": 5e6,
            "qwen3vl.attention.key_length": 128,
        },
    ),
    (
        published.QWEN3_VL_30B_A3B,
        {"qwen3vlmoe.expert_count": 128, "qwen3vlmoe.expert_feed_forward_length": 768},
    ),
    (
        published.QWEN15_MOE_A2_7B,
        {"qwen2moe.expert_used_count": 4, "qwen2moe.expert_shared_feed_forward_length": 5632},
    ),
    (
        published.OLMO_3_7B,
        {
            "olmo2.attention.sliding_window": 4096,
            "olmo2.attention.sliding_window_pattern": [True, True, True, False] * 8,
            "olmo2.rope.scaling.type": "yarn",
            "olmo2.rope.scaling.factor": 8.0,
            "olmo2.rope.scaling.attn_factor": pytest.approx(1.0),
        },
    ),
    (published.OLMOE_1B_7B, {"olmoe.expert_feed_forward_length": 1024, "olmoe.expert_count": 64}),
    (published.GEMMA_2B, {"gemma.attention.head_count_kv": 1, "gemma.attention.key_length": 256}),
    (published.SEED_OSS_36B, {"seed_oss.attention.head_count": 80, "seed_oss.rope.freq_base": 1e7}),
    (published.APERTUS_8B, {"xielu.alpha_p": [0.0] * 32, "apertus.rope.freq_base": 12e6}),
    (published.ERNIE_45_0_3B, {"ernie4_5.attention.key_length": 128}),
    (
        published.ERNIE_45_21B_A3B,
        {
            "ernie4_5-moe.leading_dense_block_count": 1,
            "ernie4_5-moe.interleave_moe_layer_step": 1,
            "ernie4_5-moe.expert_shared_feed_forward_length": 3072,
        },
    ),
    (published.HUNYUAN_7B, {"hunyuan-dense.rope.freq_base": pytest.approx(11158839.925)}),
    (published.HUNYUAN_A13B, {"hunyuan-moe.expert_used_count": 8, "hunyuan-moe.expert_count": 64}),
    (published.EXAONE_4_1_2B, {"exaone4.context_length": 65536}),
    (
        published.EXAONE_4_32B,
        {
            "exaone4.attention.sliding_window": 4096,
            "exaone4.attention.sliding_window_pattern": [True, True, True, False] * 16,
        },
    ),
    (
        published.GLM_45_AIR,
        {
            "glm4moe.rope.dimension_count": 64,
            "glm4moe.expert_gating_func": 2,
            "glm4moe.expert_shared_count": 1,
            "glm4moe.leading_dense_block_count": 1,
        },
    ),
    (published.GLM_46, {"glm4moe.block_count": 92, "glm4moe.expert_weights_scale": 2.5}),
    (published.MINIMAX_M2, {"minimax-m2.rope.dimension_count": 64, "minimax-m2.expert_gating_func": 2}),
    (
        published.GRANITE_33_8B,
        {
            "granite.attention.scale": 0.0078125,
            "granite.embedding_scale": 12.0,
            "granite.residual_scale": 0.22,
            "granite.logit_scale": 16.0,
        },
    ),
    (published.GRANITE_3_1B_A400M, {"granitemoe.expert_count": 32, "granitemoe.logit_scale": 6.0}),
    (
        published.LFM2_1_2B,
        {
            "lfm2.feed_forward_length": 8192,
            "lfm2.shortconv.l_cache": 3,
            "lfm2.attention.head_count_kv": [0, 0, 8, 0, 0, 8, 0, 0, 8, 0, 8, 0, 8, 0, 8, 0],
        },
    ),
    (
        published.LFM2_8B_A1B,
        {
            "lfm2moe.feed_forward_length": 7168,
            "lfm2moe.leading_dense_block_count": 2,
            "lfm2moe.expert_gating_func": 2,
        },
    ),
    (
        published.MINISTRAL_3_8B,
        {
            "mistral3.attention.temperature_scale": 0.1,
            "mistral3.rope.scaling.original_context_length": 16384,
            "mistral3.rope.scaling.factor": 16.0,
            "mistral3.context_length": 262144,
        },
    ),
    (
        published.QWEN3_NEXT_80B_A3B,
        {
            "qwen3next.rope.dimension_count": 64,
            "qwen3next.attention.recurrent_layers": [i % 4 != 3 for i in range(48)],
            "qwen3next.ssm.inner_size": 4096,
        },
    ),
    (
        published.DEEPSEEK_V32,
        {
            "deepseek32.attention.indexer.head_count": 64,
            "deepseek32.attention.indexer.key_length": 128,
            "deepseek32.attention.indexer.top_k": 2048,
            "deepseek32.expert_group_count": 8,
            "deepseek32.rope.scaling.yarn_log_multiplier": pytest.approx(0.1),
        },
    ),
    (
        published.GLM_5,
        {
            "glm-dsa.attention.indexer.types": [True] * 78,
            "glm-dsa.attention.key_length_mla": 256,
            "glm-dsa.rope.freq_base": 1e6,
        },
    ),
    (
        published.KIMI_LINEAR_48B_A3B,
        {
            "kimi-linear.attention.head_count_kv": [
                int(i in (3, 7, 11, 15, 19, 23, 26)) for i in range(27)
            ],
            "kimi-linear.kda.head_dim": 128,
            "kimi-linear.context_length": 1048576,
            "kimi-linear.expert_used_count": 8,
        },
    ),
    (
        published.GRANITE_4_H_TINY,
        {
            "granitehybrid.attention.head_count_kv": [4 if i % 10 == 5 else 0 for i in range(40)],
            "granitehybrid.rope.scaling.finetuned": False,
            "granitehybrid.ssm.inner_size": 3072,
            "granitehybrid.expert_shared_feed_forward_length": 1024,
        },
    ),
    (
        published.GEMMA_4_E2B,
        {
            "gemma4.attention.key_length": 512,
            "gemma4.attention.key_length_swa": 256,
            "gemma4.attention.shared_kv_layers": 20,
            "gemma4.feed_forward_length": [6144] * 15 + [12288] * 20,
            "gemma4.final_logit_softcapping": 30.0,
            "gemma4.rope.freq_base_swa": 10000.0,
        },
    ),
    (
        published.GLM_53_FLASH,
        {
            "glm5-next.attention.head_count_kv": [int(i % 4 == 3) for i in range(45)],
            "glm5-next.attention.indexer.kpool": 16,
            "glm5-next.kda.gate_lower_bound": -5.0,
            "glm5-next.leading_dense_block_count": 3,
            "glm5-next.rope.dimension_count": 0,
        },
    ),
    (
        published.DEEPSEEK_V4_FLASH,
        {
            "deepseek4.attention.compress_ratios": [0, 0, *[4, 128] * 20, 4],
            "deepseek4.attention.compress_rope_freq_base": 160000.0,
            "deepseek4.hash_layer_count": 3,
            "deepseek4.rope.dimension_count": 64,
            "deepseek4.rope.freq_base": 10000.0,
            "deepseek4.rope.scaling.factor": 16.0,
            "deepseek4.rope.scaling.original_context_length": 65536,
            "deepseek4.swiglu_clamp_exp": [10.0] * 43,
        },
    ),
    (
        published.FALCON_H1_0_5B,
        {
            "falcon-h1.ssm.inner_size": 1536,
            "falcon-h1.ssm.time_step_rank": 24,
            "falcon-h1.key_multiplier": 0.390625,
            "falcon-h1.rope.freq_base": 1e11,
        },
    ),
    (
        published.MISTRAL_SMALL_4_119B,
        {
            "mistral4.expert_gating_func": 1,
            "mistral4.attention.temperature_scale": 0.1,
            "mistral4.attention.temperature_length": 8192,
            "mistral4.attention.key_length_mla": 128,
            "mistral4.rope.scaling.factor": 128.0,
        },
    ),
    (
        published.GEMMA_3N_E4B,
        {
            "gemma3n.feed_forward_length": 16384,
            "gemma3n.attention.sliding_window_pattern": [True, True, True, True, False] * 7,
            "gemma3n.attention.shared_kv_layers": 15,
            "gemma3n.rope.freq_base_swa": 10000.0,
        },
    ),
    (
        published.QWEN36_27B,
        {
            "qwen35.attention.head_count": 24,
            "qwen35.ssm.time_step_rank": 48,
            "qwen35.ssm.group_count": 16,
            "qwen35.rope.dimension_count": 64,
        },
    ),
    (published.LLAMA_4_SCOUT, {"llama4.feed_forward_length": 16384, "llama4.expert_count": 16}),
    (published.LLAMA_4_MAVERICK, {"llama4.interleave_moe_layer_step": 2, "llama4.expert_count": 128}),
    (published.STARCODER2_7B, {"starcoder2.context_length": 4096, "starcoder2.attention.head_count": 36}),
]


@pytest.mark.parametrize(("settings", "expected"), PUBLISHED)
@pytest.mark.filterwarnings("ignore::convert.errors.ConversionWarning")
def test_published_settings(settings: Settings, expected: dict[str, Value]) -> None:
    values = metadata_of(settings)
    assert {key: values[key] for key in expected} == expected
    assert {type(value) for value in values.values()} <= {bool, int, float, str, list}


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
REFUSED: list[tuple[Settings, Settings, str]] = [
    (published.QWEN3_VL_4B, {"attention_bias": True}, "attention_bias"),
    (published.QWEN3_VL_30B_A3B, {"norm_topk_prob": False}, "norm_topk_prob"),
    (published.QWEN3_VL_30B_A3B, {"mlp_only_layers": [1]}, "mlp_only_layers"),
    (published.QWEN15_MOE_A2_7B, {"norm_topk_prob": True}, "norm_topk_prob"),
    (published.QWEN15_MOE_A2_7B, {"head_dim": 96}, "head_dim"),
    (published.OLMO_3_7B, {"head_dim": 64}, "head_dim"),
    (
        published.OLMO_3_7B,
        {
            "rope_scaling": None,
            "rope_parameters": {
                "full_attention": {"rope_theta": 5e5},
                "sliding_attention": {"rope_theta": 1e4},
            },
        },
        "sliding layers",
    ),
    (published.OLMOE_1B_7B, {"num_key_value_heads": 4}, "num_key_value_heads"),
    (published.OLMOE_1B_7B, {"norm_topk_prob": True}, "norm_topk_prob"),
    (published.OLMOE_1B_7B, {"clip_qkv": 8.0}, "clip_qkv"),
    (published.GEMMA_2B, {"hidden_act": "gelu"}, "hidden_act"),
    (published.SEED_OSS_36B, {"attention_out_bias": True}, "attention_out_bias"),
    (published.APERTUS_8B, {"hidden_act": "silu"}, "hidden_act"),
    (published.APERTUS_8B, {"post_norm": True}, "post_norm"),
    (published.ERNIE_45_0_3B, {"use_bias": True}, "use_bias"),
    (published.ERNIE_45_21B_A3B, {"moe_layer_interval": 2}, "moe_layer_interval"),
    (published.ERNIE_45_21B_A3B, {"moe_layer_end_index": 20}, "moe_layer_end_index"),
    (published.HUNYUAN_7B, {"attention_bias": True}, "attention_bias"),
    (published.EXAONE_4_1_2B, {"sliding_window": 4096}, "30 layers"),
    (published.EXAONE_4_32B, {"sliding_window": None}, "64 layers"),
    (published.GLM_45_AIR, {"n_shared_experts": 0}, "n_shared_experts"),
    (published.GLM_45_AIR, {"routed_scaling_factor": 0.0}, "routed_scaling_factor"),
    (published.MINIMAX_M2, {"scoring_func": "softmax"}, "scoring_func"),
    (published.GRANITE_33_8B, {"logits_scaling": 0.0}, "multiplier"),
    (published.LFM2_1_2B, {"conv_bias": True}, "conv_bias"),
    (published.LFM2_8B_A1B, {"norm_topk_prob": False}, "norm_topk_prob"),
    (published.LFM2_8B_A1B, {"use_expert_bias": False}, "use_expert_bias"),
    (
        published.MINISTRAL_3_8B,
        {"rope_parameters": {"rope_type": "default", "llama_4_scaling_beta": 0.1}},
        "llama_4_scaling_beta",
    ),
    (published.QWEN3_NEXT_80B_A3B, {"decoder_sparse_step": 2}, "decoder_sparse_step"),
    (published.DEEPSEEK_V32, {"index_head_dim": 96}, "index_head_dim"),
    (published.KIMI_LINEAR_48B_A3B, {"moe_renormalize": False}, "norm_topk_prob"),
    (published.KIMI_LINEAR_48B_A3B, {"q_lora_rank": 1536}, "q_lora_rank"),
    (published.DEEPSEEK_V32, {"mlp_layer_types": ["sparse", "dense"] * 30}, "mlp_layer_types"),
    (published.GRANITE_4_H_TINY, {"mamba_expand": 4}, "mamba_expand"),
    (published.GRANITE_4_H_TINY, {"layer_types": ["attention"] * 40}, "none of the 40 layers"),
    (published.LFM2_1_2B, {"layer_types": ["conv"] * 16}, "all of the 16 layers"),
    (published.QWEN3_NEXT_80B_A3B, {"layer_types": ["full_attention"] * 48}, "none of the 48 layers"),
    (published.KIMI_LINEAR_48B_A3B, {"layer_types": ["linear_attention"] * 27}, "all of the 27 layers"),
    (published.GRANITE_4_H_TINY, {"time_step_limit": [0.0, 0.1]}, "time_step_limit"),
    (published.GEMMA_3N_E4B, {"altup_num_inputs": 2}, "altup_num_inputs"),
    (published.GEMMA_3N_E4B, {"laurel_rank": 32}, "laurel_rank"),
    (published.GEMMA_3N_E4B, {"final_logit_softcapping": 20.0}, "final_logit_softcapping"),
    (published.GEMMA_3N_E4B, {"num_kv_shared_layers": 10}, "num_kv_shared_layers"),
    (published.GEMMA_3N_E4B, {"activation_sparsity_pattern": [0.0] * 35}, "activation_sparsity_pattern"),
    (published.GEMMA_3N_E4B, {"layer_types": ["full_attention"] * 35}, "layers 18 and 19"),
    (published.GEMMA_3N_E4B, {"intermediate_size": [8192] * 34 + [16384]}, "intermediate_size"),
    (published.LLAMA_4_SCOUT, {"use_qk_norm": False}, "use_qk_norm"),
    (published.LLAMA_4_SCOUT, {"attention_chunk_size": 4096}, "attention_chunk_size"),
    (published.LLAMA_4_SCOUT, {"attn_temperature_tuning": 0}, "attn_temperature_tuning"),
    (published.LLAMA_4_SCOUT, {"no_rope_layers": [1, 0] * 24}, "no_rope_layers"),
    (published.LLAMA_4_MAVERICK, {"moe_layers": [0, 1]}, "moe_layers"),
    (published.DEEPSEEK_V4_FLASH, {"mlp_layer_types": ["moe", "hash_moe"] + ["moe"] * 41}, "hash_moe"),
    (published.GEMMA_4_E2B, {"num_kv_shared_layers": 19}, "num_kv_shared_layers"),
    (published.GEMMA_4_E2B, {"layer_types": ["full_attention"] * 35}, "sliding_attention"),
    (published.GEMMA_4_E2B, {"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
    (
        published.GEMMA_4_E2B,
        {"per_layer_config": {"4": {"head_dim": 512}, "9": {"head_dim": 256}}},
        "per_layer_config",
    ),
    (
        published.GEMMA_4_E2B,
        {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}},
        "linear",
    ),
    (published.GLM_53_FLASH, {"hc_mult": 2}, "hc_mult"),
    (published.GLM_53_FLASH, {"index_kpool": 1}, "index_kpool"),
    (published.GLM_53_FLASH, {"index_topk": 2040}, "index_topk"),
    (published.GLM_53_FLASH, {"index_kpool_always_select_tail": False}, "select_tail"),
    (published.GLM_53_FLASH, {"qk_rope_head_dim": 64}, "qk_rope_head_dim"),
    (published.GLM_53_FLASH, {"layer_types": ["linear_attention"] * 45}, "all of the 45 layers"),
    (published.DEEPSEEK_V4_FLASH, {"hc_mult": 2}, "hc_mult"),
    (published.DEEPSEEK_V4_FLASH, {"compress_rate_csa": 8}, "compress_rate_csa"),
    (published.DEEPSEEK_V4_FLASH, {"swiglu_limit": 0.0}, "swiglu_limit"),
    (published.DEEPSEEK_V4_FLASH, {"index_head_dim": 96}, "index_head_dim"),
    (
        published.DEEPSEEK_V4_FLASH,
        {"rope_parameters": {"main": {"rope_type": "linear", "factor": 2.0}, "compress": {}}},
        "linear",
    ),
    (
        published.DEEPSEEK_V4_FLASH,
        {"rope_parameters": {"main": {}, "compress": {"rope_type": "yarn", "factor": 2.0}}},
        "attention_factor",
    ),
    (published.FALCON_H1_0_5B, {"projectors_bias": True}, "projectors_bias"),
    (published.FALCON_H1_0_5B, {"mamba_d_head": 32}, "mamba_d_head"),
    (
        published.FALCON_H1_0_5B,
        {"mamba_rms_norm": True, "mamba_norm_before_gate": True},
        "mamba_norm_before_gate",
    ),
    (published.MISTRAL_SMALL_4_119B, {"topk_method": "noaux_tc"}, "topk_method"),
    (published.STARCODER2_7B, {"head_dim": 64}, "head_dim"),
    (published.STARCODER2_7B, {"hidden_act": "gelu"}, "hidden_act"),
]


@pytest.mark.parametrize(("settings", "change", "named"), REFUSED)
@pytest.mark.filterwarnings("ignore::convert.errors.ConversionWarning")
def test_what_llama_cpp_cannot_express_is_refused(settings: Settings, change: Settings, named: str) -> None:
    metadata_of(settings)
    with pytest.raises(UnsupportedError, match=named):
        metadata_of(settings | change)


@pytest.mark.parametrize(
    ("settings", "change", "named"),
    [
        (published.OLMO_3_7B, {"layer_types": ["full_attention"]}, "layer_types"),
        (published.OLMO_3_7B, {"layer_types": ["chunked_attention"] * 32}, "layer_types"),
        (published.GLM_45_AIR, {"n_group": 3, "topk_group": 2}, "n_group"),
        (published.LFM2_1_2B, {"layer_types": ["sliding_attention"] * 16}, "layer_types"),
        (published.GLM_5, {"indexer_types": ["shared"] * 78}, "indexer_types"),
        (published.GLM_5, {"index_topk_pattern": "FX" * 39}, "indexer_types"),
        (published.HUNYUAN_A13B, {"moe_topk": [8, 4] * 16}, "moe_topk"),
        (published.DEEPSEEK_V4_FLASH, {"compress_ratios": [2] * 43}, "compress_ratios"),
        (published.DEEPSEEK_V4_FLASH, {"layer_types": ["full_attention"] * 43}, "layer_types"),
    ],
)
def test_settings_that_do_not_go_together(settings: Settings, change: Settings, named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        metadata_of(settings | change)


@pytest.mark.parametrize(
    ("settings", "full"),
    [
        ({"index_topk_pattern": "FSF" * 26}, [True, False, True] * 26),
        ({"index_topk_freq": 4}, [i < 2 or i % 4 == 1 for i in range(78)]),
        ({"index_topk_freq": 4, "index_skip_topk_offset": 1}, [i % 4 == 0 for i in range(78)]),
    ],
)
def test_layers_that_take_over_a_choice(settings: Settings, full: list[bool]) -> None:
    assert metadata_of(published.GLM_5 | settings)["glm-dsa.attention.indexer.types"] == full


def test_gemma_has_no_output_matrix_of_its_own() -> None:
    row = PLANS["gemma, Gemma 1"]
    shapes = row["shapes"] | {"lm_head.weight": row["shapes"]["model.embed_tokens.weight"]}
    with pytest.raises(UnsupportedError, match="gemma always uses the token embeddings"):
        plan(row["architecture"], row["settings"] | {"tie_word_embeddings": False}, shapes)


def test_each_rotary_pair_is_turned_where_axes_take_turns() -> None:
    """llama.cpp leaves two of Qwen3-VL's 64 pairs alone with the published 24, 20, 20."""
    for head_size in (12, 16, 80, 128):
        values = metadata_of(published.QWEN3_VL_4B | {"head_dim": head_size})
        sections = values["qwen3vl.rope.dimension_sections"]
        assert isinstance(sections, list)
        assert sum(sections) == head_size // 2
        assert all(pair < 3 * sections[pair % 3] for pair in range(head_size // 2))


def test_rows_times_numbers() -> None:
    array = np.arange(6, dtype=np.float16).reshape(3, 2)
    target = Target("t", (3, 2), ("s",), lambda: iter([array[:2], array[2:]]), is_matrix=True)
    scaled = target.times(np.array([2, 1, 0.5], np.float32))
    assert np.concatenate(list(scaled.pieces())).tolist() == [[0, 2], [2, 3], [2, 2.5]]
    assert target.times(np.ones(3, np.float32)) is target


def test_an_adapter_needs_the_multipliers_that_are_in_the_base() -> None:
    file: Any = SimpleNamespace(
        path=Path("base.gguf"), metadata={"general.architecture": "falcon-h1"}, tensors={}
    )
    with pytest.raises(UnsupportedError, match="give the directory of the checkpoint"):
        read_blueprint([file])
