"""What the dense families make of settings: published ones, and those llama.cpp cannot express."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.architectures import Architecture, find_architecture
from convert.errors import CheckpointError, ConversionWarning, UnsupportedError
from convert.gguf.head import Value
from convert.source.config import Config
from convert.source.tensor import SourceTensor
from tests.convert import published

Settings = dict[str, Any]


def family_of(settings: Settings, tensors: dict[str, SourceTensor] | None = None) -> Architecture:
    return find_architecture(settings["architectures"][0])(Config(settings), tensors or {})


def metadata_of(settings: Settings) -> dict[str, Value]:
    family = family_of(settings)
    values = family.metadata()
    family.config.refuse_unread()
    return values


SIZES = {"context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count"}
ROTARY = SIZES | {
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "rope.dimension_count",
}
MAMBA = SIZES | {
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_epsilon",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
    "ssm.group_count",
}

PUBLISHED: list[tuple[Settings, str, set[str], dict[str, Value]]] = [
    (published.LLAMA_3_2_1B, "llama", ROTARY, {"context_length": 131072, "rope.dimension_count": 64}),
    (published.MISTRAL_7B, "llama", ROTARY, {"context_length": 4096}),
    (published.MISTRAL_7B | {"sliding_window": None}, "llama", ROTARY, {"context_length": 32768}),
    (published.SMOLLM3_3B, "smollm3", ROTARY, {"rope.freq_base": 5e6, "context_length": 65536}),
    (published.QWEN2_5_0_5B, "qwen2", ROTARY, {"attention.key_length": 64, "context_length": 32768}),
    (published.QWEN3_4B, "qwen3", ROTARY, {"attention.key_length": 128, "rope.freq_base": 1e6}),
    (
        published.GEMMA_2_27B,
        "gemma2",
        ROTARY | {"attention.sliding_window"},
        {
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "attention.sliding_window_pattern": [True, False] * 23,
        },
    ),
    (
        published.GEMMA_3_270M,
        "gemma3",
        ROTARY,
        {
            "attention.sliding_window": 512,
            "attention.sliding_window_pattern": ([True] * 5 + [False]) * 3,
            "rope.freq_base": 1e6,
            "rope.freq_base_swa": 1e4,
        },
    ),
    (
        published.GEMMA_3_4B_TEXT,
        "gemma3",
        ROTARY,
        {
            "context_length": 131072,
            "attention.head_count": 8,
            "attention.head_count_kv": 4,
            "attention.key_length": 256,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
            "rope.freq_base": 1e6,
            "rope.freq_base_swa": 1e4,
            "attention.sliding_window_pattern": [i % 6 != 5 for i in range(34)],
        },
    ),
    (
        published.PHI_4_MINI,
        "phi3",
        ROTARY,
        {
            "rope.dimension_count": 96,
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": 4096,
            "rope.scaling.attn_factor": pytest.approx((1 + np.log(32) / np.log(4096)) ** 0.5),
            "context_length": 131072,
        },
    ),
    (published.PHI_3_MINI_4K, "phi3", ROTARY, {"context_length": 2047}),
    (published.OLMO_2_1B, "olmo2", ROTARY, {"rope.freq_base": 5e5}),
    (published.GPT2, "gpt2", SIZES | {"attention.layer_norm_epsilon"}, {"feed_forward_length": 3072}),
    (
        published.NEMOTRON_H_8B,
        "nemotron_h",
        MAMBA,
        {
            "block_count": 52,
            "ssm.inner_size": 8192,
            "attention.head_count_kv": [
                8 if kind == "*" else 0 for kind in published.NEMOTRON_H_8B["hybrid_override_pattern"]
            ],
            "feed_forward_length": [
                21504 if kind == "-" else 0 for kind in published.NEMOTRON_H_8B["hybrid_override_pattern"]
            ],
        },
    ),
    (
        published.NEMOTRON_3_NANO,
        "nemotron_h_moe",
        MAMBA | {"expert_feed_forward_length", "expert_shared_feed_forward_length"},
        {
            "block_count": 52,
            "expert_count": 128,
            "expert_used_count": 6,
            "expert_weights_norm": True,
            "expert_weights_scale": 2.5,
        },
    ),
]


@pytest.mark.parametrize(("settings", "name", "required", "expected"), PUBLISHED)
def test_published_settings(
    settings: Settings, name: str, required: set[str], expected: dict[str, Value]
) -> None:
    values = metadata_of(settings)
    assert family_of(settings).gguf_name == name
    assert required <= values.keys()
    assert {key: values[key] for key in expected} == expected
    kinds = {type(value) for value in values.values()}
    assert kinds <= {bool, int, float, str, list}, "numpy's numbers are no metadata"


REFUSED: list[tuple[Settings, Settings, str]] = [
    (published.LLAMA_3_2_1B, {"hidden_act": "gelu"}, "hidden_act"),
    (published.LLAMA_3_2_1B, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    (published.LLAMA_3_2_1B, {"sliding_window": 512}, "sliding_window"),
    (published.LLAMA_3_2_1B, {"embedding_multiplier": 12.0}, "embedding_multiplier"),
    (published.LLAMA_3_2_1B, {"logits_scaling": 8.0}, "logits_scaling"),
    (published.LLAMA_3_2_1B, {"is_causal": False}, "is_causal"),
    (published.LLAMA_3_2_1B, {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    (published.LLAMA_3_2_1B, {"rope_scaling": {"rope_type": "proportional"}}, "proportional"),
    (
        published.LLAMA_3_2_1B,
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": 64}},
        "beta_fast",
    ),
    (
        published.LLAMA_3_2_1B,
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "truncate": False}},
        "truncate",
    ),
    (published.SMOLLM3_3B, {"no_rope_layers": [1, 0] * 18}, "no_rope_layers"),
    (published.SMOLLM3_3B, {"no_rope_layers": None, "no_rope_layer_interval": 3}, "no_rope_layers"),
    (published.SMOLLM3_3B, {"attention_bias": True}, "attention_bias"),
    (published.QWEN2_5_0_5B, {"head_dim": 128}, "head_dim"),
    (published.QWEN2_5_0_5B, {"rope_scaling": published.LLAMA_3_2_1B["rope_scaling"]}, "llama3"),
    (published.QWEN3_4B, {"attention_bias": True}, "attention_bias"),
    (
        published.QWEN3_4B,
        {
            "rope_parameters": {
                "full_attention": {"rope_theta": 1e6},
                "sliding_attention": {"rope_theta": 1e4},
            }
        },
        "rope_parameters",
    ),
    (published.GEMMA_2_27B, {"query_pre_attn_scalar": 128}, "query_pre_attn_scalar"),
    (published.GEMMA_2_27B, {"attn_logit_softcapping": None}, "attn_logit_softcapping"),
    (published.GEMMA_2_27B, {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    (published.GEMMA_2_27B, {"hidden_activation": "gelu"}, "hidden_activation"),
    (published.GEMMA_3_270M, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    (published.GEMMA_3_270M, {"query_pre_attn_scalar": 160}, "query_pre_attn_scalar"),
    (
        published.GEMMA_3_270M,
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
            }
        },
        "sliding layers",
    ),
    (published.PHI_4_MINI, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
    (published.PHI_4_MINI, {"attention_bias": True}, "attention_bias"),
    (published.OLMO_2_1B, {"clip_qkv": 8.0}, "clip_qkv"),
    (published.GPT2, {"activation_function": "gelu"}, "activation_function"),
    (published.GPT2, {"scale_attn_weights": False}, "scale_attn_weights"),
    (published.GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    (published.NEMOTRON_H_8B, {"mlp_hidden_act": "silu"}, "mlp_hidden_act"),
    (published.NEMOTRON_H_8B, {"time_step_limit": [0.0, 0.1]}, "time_step_limit"),
    (published.NEMOTRON_H_8B, {"use_bias": True}, "use_bias"),
    (published.NEMOTRON_3_NANO, {"hybrid_override_pattern": "M-ME"}, "both MLP and experts"),
    (published.NEMOTRON_3_NANO, {"mlp_bias": True}, "mlp_bias"),
]


@pytest.mark.parametrize(("settings", "change", "named"), REFUSED)
def test_what_llama_cpp_cannot_express_is_refused(settings: Settings, change: Settings, named: str) -> None:
    metadata_of(settings)
    with pytest.raises(UnsupportedError, match=named):
        metadata_of(settings | change)


MALFORMED: list[tuple[Settings, Settings, str]] = [
    (published.LLAMA_3_2_1B, {"hidden_size": "2048"}, "hidden_size"),
    (published.LLAMA_3_2_1B, {"num_hidden_layers": -1}, "num_hidden_layers"),
    (published.LLAMA_3_2_1B, {"rms_norm_eps": None}, "rms_norm_eps"),
    (published.LLAMA_3_2_1B, {"rope_scaling": [8.0]}, "rope_scaling"),
    (published.LLAMA_3_2_1B, {"rope_theta": "much"}, "rope_theta"),
    (published.QWEN3_4B, {"rope_scaling": {"type": "yarn", "factor": "four"}}, "factor"),
    (published.GEMMA_3_4B_TEXT, {"rope_scaling": {"type": "linear"}}, "factor"),
    (published.NEMOTRON_H_8B, {"hybrid_override_pattern": "MX"}, "X"),
    (published.NEMOTRON_H_8B, {"hybrid_override_pattern": None}, "hybrid_override_pattern"),
]


@pytest.mark.parametrize(("settings", "change", "named"), MALFORMED)
def test_malformed_settings_are_named(settings: Settings, change: Settings, named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        metadata_of(settings | change)


def test_transformers_5_says_the_same_as_4() -> None:
    old = published.LLAMA_3_2_1B
    new = {key: value for key, value in old.items() if not key.startswith("rope")}
    new["rope_parameters"] = {"rope_theta": old["rope_theta"], **old["rope_scaling"]}
    assert metadata_of(new) == metadata_of(old)

    old = published.PHI_4_MINI
    left_out = ("rope_theta", "rope_scaling", "partial_rotary_factor")
    new = {key: value for key, value in old.items() if key not in left_out}
    new["rope_parameters"] = {
        "rope_theta": old["rope_theta"],
        "partial_rotary_factor": old["partial_rotary_factor"],
        "rope_type": "longrope",
        **{key: old["rope_scaling"][key] for key in ("long_factor", "short_factor")},
    }
    assert metadata_of(new) == metadata_of(old)

    old = published.GEMMA_3_270M | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    new = {key: value for key, value in old.items() if not key.startswith("rope")}
    new["rope_parameters"] = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    assert metadata_of(new) == metadata_of(old)

    old = published.GPT2
    assert metadata_of({key: value for key, value in old.items() if key != "n_ctx"}) == metadata_of(old)

    old = published.NEMOTRON_H_8B
    names = {"M": "linear_attention", "*": "full_attention", "-": "mlp"}
    new = {
        key: value
        for key, value in old.items()
        if key not in ("hybrid_override_pattern", "num_hidden_layers")
    }
    new["layers_block_type"] = [names[kind] for kind in old["hybrid_override_pattern"]]
    new["time_step_limit"] = [0.0, {"__float__": "Infinity"}]
    assert metadata_of(new) == metadata_of(old)


def test_dynamic_scaling_begins_where_the_context_ends() -> None:
    plain = published.LLAMA_3_2_1B | {"rope_scaling": None}
    dynamic = plain | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
    assert metadata_of(dynamic) == metadata_of(plain)


def test_mistral_without_a_word_on_its_window_has_4096() -> None:
    settings = {key: value for key, value in published.MISTRAL_7B.items() if key != "sliding_window"}
    with pytest.warns(ConversionWarning, match="last 4096 tokens only"):
        assert metadata_of(settings)["context_length"] == 4096


@pytest.mark.parametrize(
    ("change", "length"),
    [
        ({"use_sliding_window": True, "sliding_window": 8192, "max_window_layers": 30}, 8192),
        ({"use_sliding_window": True, "sliding_window": 8192}, 40960),  # no layer is above the 36th
        ({"use_sliding_window": False, "sliding_window": 8192, "max_window_layers": 0}, 40960),
        (
            {"use_sliding_window": True, "sliding_window": 8192, "layer_types": ["sliding_attention"] * 36},
            8192,
        ),
    ],
)
def test_a_window_that_llama_cpp_has_not_ends_the_context(change: Settings, length: int) -> None:
    assert metadata_of(published.QWEN3_4B | change)["context_length"] == length


# -- tensors --------------------------------------------------------------------------------------

TINY = published.LLAMA_3_2_1B | {
    "head_dim": 8,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
}
SHAPES = {
    "model.embed_tokens.weight": (32, 16),
    "model.norm.weight": (16,),
    "model.layers.0.input_layernorm.weight": (16,),
    "model.layers.0.post_attention_layernorm.weight": (16,),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.layers.0.self_attn.k_proj.weight": (8, 16),
    "model.layers.0.self_attn.v_proj.weight": (8, 16),
    "model.layers.0.self_attn.o_proj.weight": (16, 16),
    "model.layers.0.mlp.gate_proj.weight": (24, 16),
    "model.layers.0.mlp.up_proj.weight": (24, 16),
    "model.layers.0.mlp.down_proj.weight": (16, 24),
}


def tensors_of(shapes: dict[str, tuple[int, ...]]) -> dict[str, SourceTensor]:
    return {name: SourceTensor(name, shape, "F32", Path("none"), 0) for name, shape in shapes.items()}


def test_a_tied_model_has_no_output_matrix() -> None:
    tied = {target.name for target in family_of(TINY, tensors_of(SHAPES)).targets()}
    assert "output.weight" not in tied
    with pytest.raises(CheckpointError, match=r"lm_head\.weight"):
        list(family_of(TINY | {"tie_word_embeddings": False}, tensors_of(SHAPES)).targets())


def test_llama3_factors_and_permuted_queries_are_targets() -> None:
    targets = {target.name: target for target in family_of(TINY, tensors_of(SHAPES)).targets()}
    assert targets["rope_freqs.weight"].shape == (4,)
    assert not targets["rope_freqs.weight"].is_matrix
    rows = targets["blk.0.attn_q.weight"].rows
    assert rows is not None
    assert rows.tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    assert targets["blk.0.attn_v.weight"].rows is None


@pytest.mark.parametrize("name", [name for name in SHAPES if "layers" in name])
def test_a_wrong_shape_is_named(name: str) -> None:
    wrong = {**SHAPES, name: (*SHAPES[name][:-1], SHAPES[name][-1] + 8)}
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        list(family_of(TINY, tensors_of(wrong)).targets())


@pytest.mark.parametrize("name", SHAPES)
def test_a_missing_tensor_is_named(name: str) -> None:
    left = {key: shape for key, shape in SHAPES.items() if key != name}
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        list(family_of(TINY, tensors_of(left)).targets())


def test_biases_are_permuted_like_their_matrices() -> None:
    biased = TINY | {"attention_bias": True}
    biases = {
        f"model.layers.0.self_attn.{part}_proj.bias": (n,)
        for part, n in zip("qkvo", (16, 8, 8, 16), strict=True)
    }
    targets = {t.name: t for t in family_of(biased, tensors_of(SHAPES | biases)).targets()}
    for part in ("attn_q", "attn_k"):
        matrix, bias = targets[f"blk.0.{part}.weight"].rows, targets[f"blk.0.{part}.bias"].rows
        assert matrix is not None
        assert bias is not None
        assert np.array_equal(matrix, bias)
    assert targets["blk.0.attn_output.bias"].shape == (16,)


@pytest.mark.parametrize("prefix", ["model.", "model.language_model.", "language_model.model."])
def test_gemma_3_is_found_under_each_of_its_prefixes(prefix: str, tmp_path: Path) -> None:
    settings = published.GEMMA_3_270M | {
        **{
            key: TINY[key]
            for key in TINY
            if "num_" in key or key in ("hidden_size", "intermediate_size", "head_dim")
        },
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention"],
    }
    shapes = SHAPES | {
        "model.layers.0.self_attn.q_norm.weight": (8,),
        "model.layers.0.self_attn.k_norm.weight": (8,),
        "model.layers.0.pre_feedforward_layernorm.weight": (16,),
        "model.layers.0.post_feedforward_layernorm.weight": (16,),
    }
    norm = np.linspace(-1, 1, 16, dtype=np.float32)
    (tmp_path / "norm").write_bytes(norm.tobytes())
    tensors = tensors_of({prefix + name.removeprefix("model."): shape for name, shape in shapes.items()})
    tensors[f"{prefix}norm.weight"] = SourceTensor(
        f"{prefix}norm.weight", (16,), "F32", tmp_path / "norm", 0
    )
    targets = {target.name: target for target in family_of(settings, tensors).targets()}
    assert np.array_equal(np.concatenate([*targets["output_norm.weight"].pieces()]), norm + 1)
    assert {source for target in targets.values() for source in target.sources} == tensors.keys()


def test_gpt2_of_old_without_prefix_and_with_masks() -> None:
    settings = published.GPT2 | {"n_embd": 16, "n_head": 2, "n_layer": 1, "n_positions": 8}
    matrices = {
        "attn.c_attn": (16, 48),
        "attn.c_proj": (16, 16),
        "mlp.c_fc": (16, 64),
        "mlp.c_proj": (64, 16),
    }
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (32, 16), "wpe.weight": (8, 16)}
    for name in ("ln_f", "h.0.ln_1", "h.0.ln_2"):
        shapes |= {f"{name}.weight": (16,), f"{name}.bias": (16,)}
    for name, shape in matrices.items():
        shapes |= {f"h.0.{name}.weight": shape, f"h.0.{name}.bias": shape[1:]}
    family = family_of(settings, tensors_of(shapes))
    targets = {target.name: target for target in family.targets()}
    assert {source for target in targets.values() for source in target.sources} == shapes.keys()
    assert targets["blk.0.attn_qkv.weight"].shape == (48, 16)
    assert targets["blk.0.attn_qkv.weight"].is_transposed
    assert not targets["position_embd.weight"].is_matrix
    masks = ("h.0.attn.bias", "h.11.attn.masked_bias", "transformer.h.3.attn.bias")
    assert all(any(fnmatchcase(mask, pattern) for pattern in family.ignored) for mask in masks)
    assert not any(fnmatchcase(name, pattern) for name in shapes for pattern in family.ignored)


@pytest.mark.parametrize("prefix", ["backbone.", "model."])
@pytest.mark.parametrize("stacked", [False, True])
def test_nemotron_h_experts_stacked_or_one_by_one(prefix: str, stacked: bool) -> None:
    settings = published.NEMOTRON_3_NANO | {"hybrid_override_pattern": "E", "n_routed_experts": 2}
    mixer = f"{prefix}layers.0.mixer."
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}embeddings.weight": (32, 16),
        f"{prefix}norm_f.weight": (16,),
        f"{prefix}layers.0.norm.weight": (16,),
        "lm_head.weight": (32, 16),
        f"{mixer}gate.weight": (2, 16),
        f"{mixer}gate.e_score_correction_bias": (2,),
        f"{mixer}shared_experts.up_proj.weight": (24, 16),
        f"{mixer}shared_experts.down_proj.weight": (16, 24),
    }
    if stacked:
        shapes |= {f"{mixer}experts.up_proj": (2, 8, 16), f"{mixer}experts.down_proj": (2, 16, 8)}
    else:
        for expert in range(2):
            shapes |= {
                f"{mixer}experts.{expert}.up_proj.weight": (8, 16),
                f"{mixer}experts.{expert}.down_proj.weight": (16, 8),
            }
    targets = {target.name: target for target in family_of(settings, tensors_of(shapes)).targets()}
    assert {source for target in targets.values() for source in target.sources} == shapes.keys()
    assert targets["blk.0.ffn_up_exps.weight"].shape == (2, 8, 16)
    assert targets["blk.0.ffn_down_exps.weight"].shape == (2, 16, 8)
    assert not targets["blk.0.ffn_gate_inp.weight"].is_matrix
