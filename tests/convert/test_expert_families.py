"""The families with experts: what they read from published configs, what they refuse, how they stack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest

from convert.architectures import find_architecture
from convert.architectures.architecture import Architecture
from convert.architectures.experts import expert_stacks
from convert.errors import CheckpointError, ConversionWarning, UnsupportedError
from convert.gguf.target import Target
from convert.source.config import Config
from convert.source.packed import dequantize_int4
from convert.source.quantization.unpack import unpack
from convert.source.safetensors_file import read_tensors
from convert.source.tensor import SourceTensor
from tests.random_checkpoints.plain import write_safetensors

QWEN3_30B_A3B: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN35_4B: dict[str, Any] = {
    "architectures": ["Qwen3_5ForConditionalGeneration"],
    "attention_bias": False,
    "attn_output_gate": True,
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "hidden_size": 2560,
    "intermediate_size": 9216,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 262144,
    "mtp_num_hidden_layers": 1,
    "num_attention_heads": 16,
    "num_hidden_layers": 32,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {
        "mrope_interleaved": True,
        "mrope_section": [11, 11, 10],
        "partial_rotary_factor": 0.25,
        "rope_theta": 10000000,
        "rope_type": "default",
    },
    "tie_word_embeddings": True,
    "vocab_size": 248320,
}
GPT_OSS_20B: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "max_position_embeddings": 131072,
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "mxfp4"},
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "vocab_size": 201088,
}
DEEPSEEK_V31: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "scale_fmt": "ue8m0",
        "weight_block_size": [128, 128],
    },
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "v_head_dim": 128,
    "vocab_size": 129280,
}
INT4 = {"num_bits": 4, "group_size": 32, "strategy": "group", "symmetric": True, "type": "int"}
KIMI_K26: dict[str, Any] = DEEPSEEK_V31 | {
    "architectures": ["KimiK25ForConditionalGeneration"],
    "first_k_dense_replace": 1,
    "max_position_embeddings": 262144,
    "n_group": 1,
    "n_routed_experts": 384,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "num_nextn_predict_layers": 0,
    "quantization_config": {
        "config_groups": {"group_0": {"input_activations": None, "targets": ["Linear"], "weights": INT4}},
        "format": "pack-quantized",
        "quant_method": "compressed-tensors",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": DEEPSEEK_V31["rope_scaling"] | {"factor": 64.0},
    "rope_theta": 50000.0,
    "routed_scaling_factor": 2.827,
    "topk_group": 1,
    "vocab_size": 163840,
}


def architecture(
    config: Mapping[str, Any], tensors: Mapping[str, SourceTensor] | None = None
) -> Architecture:
    settings = Config(config)
    return find_architecture(config["architectures"][0])(settings, unpack(tensors or {}, settings))


def metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """Read a config with no more of its tensors than the embedding, and those nowhere."""
    shape = (config["vocab_size"], config["hidden_size"])
    tensors = {
        f"{prefix}embed_tokens.weight": SourceTensor(
            f"{prefix}embed_tokens.weight", shape, "BF16", Path(), 0
        )
        for prefix in ("model.", "model.language_model.", "language_model.model.")
    }
    model = architecture(config, tensors)
    values = model.metadata()
    model.config.refuse_unread()
    return dict(values)


class TestPublishedConfigs:
    def test_qwen3_30b_a3b(self) -> None:
        assert metadata(QWEN3_30B_A3B) == {
            "context_length": 40960,
            "embedding_length": 2048,
            "block_count": 48,
            "feed_forward_length": 6144,
            "attention.head_count": 32,
            "attention.head_count_kv": 4,
            "attention.key_length": 128,
            "attention.value_length": 128,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.freq_base": 1e6,
            "rope.dimension_count": 128,
            "expert_count": 128,
            "expert_used_count": 8,
            "expert_feed_forward_length": 768,
        }

    def test_qwen35_4b(self) -> None:
        values = metadata(QWEN35_4B)
        assert values["rope.dimension_count"] == 64
        assert values["rope.dimension_sections"] == [11, 11, 10, 0]
        assert values["attention.recurrent_layers"] == [i % 4 != 3 for i in range(32)]
        assert {key: value for key, value in values.items() if key.startswith("ssm.")} == {
            "ssm.conv_kernel": 4,
            "ssm.state_size": 128,
            "ssm.group_count": 16,
            "ssm.time_step_rank": 32,
            "ssm.inner_size": 4096,
        }

    def test_qwen35_turns_a_quarter_where_nothing_is_said(self) -> None:
        silent = {key: value for key, value in QWEN35_4B.items() if key != "rope_parameters"}
        assert metadata(silent)["rope.dimension_count"] == 64
        assert metadata(silent | {"partial_rotary_factor": 0.5})["rope.dimension_count"] == 128

    def test_gpt_oss_20b(self) -> None:
        with pytest.warns(ConversionWarning, match="truncate: false"):
            values = metadata(GPT_OSS_20B)
        assert values["attention.sliding_window"] == 128
        assert values["attention.sliding_window_pattern"] == [True, False] * 12
        assert values["rope.scaling.type"] == "yarn"
        assert values["rope.scaling.factor"] == 32
        assert values["rope.scaling.original_context_length"] == 4096
        assert values["rope.scaling.attn_factor"] == pytest.approx(1)

    def test_deepseek_v31(self) -> None:
        values = metadata(DEEPSEEK_V31)
        assert values["attention.head_count_kv"] == 1
        assert values["attention.key_length"] == 576
        assert values["attention.key_length_mla"] == 192
        assert values["attention.q_lora_rank"] == 1536
        assert (values["expert_group_count"], values["expert_group_used_count"]) == (8, 4)
        assert values["expert_gating_func"] == 2
        # what llama.cpp's own files have: 0.1 * mscale_all_dim
        assert values["rope.scaling.yarn_log_multiplier"] == pytest.approx(0.1)
        assert values["rope.scaling.attn_factor"] == pytest.approx(1)

    def test_kimi_k26(self) -> None:
        values = metadata(KIMI_K26)
        assert values["expert_count"] == 384
        assert "expert_group_count" not in values
        assert values["leading_dense_block_count"] == 1

    def test_as_transformers_5_writes_deepseek(self) -> None:
        """No scoring_func, the rotation in rope_parameters, head_dim beside the others."""
        left_out = ("scoring_func", "topk_method", "moe_layer_freq", "rope_theta", "rope_scaling")
        new = {key: value for key, value in DEEPSEEK_V31.items() if key not in left_out}
        rope = DEEPSEEK_V31["rope_scaling"] | {"rope_theta": 10000, "rope_type": "yarn"}
        del rope["type"]
        new |= {"head_dim": 64, "rope_interleave": True, "rope_parameters": rope}
        assert metadata(new) == metadata(DEEPSEEK_V31)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
REFUSED = [
    (QWEN3_30B_A3B, {"norm_topk_prob": False}, "norm_topk_prob"),
    (QWEN3_30B_A3B, {"norm_topk_prob": None}, "norm_topk_prob"),
    (QWEN3_30B_A3B, {"decoder_sparse_step": 2}, "decoder_sparse_step"),
    (QWEN3_30B_A3B, {"mlp_only_layers": [0]}, "mlp_only_layers"),
    (QWEN3_30B_A3B, {"attention_bias": True}, "attention_bias"),
    (QWEN3_30B_A3B, {"hidden_act": "gelu"}, "hidden_act"),
    (QWEN3_30B_A3B, {"rope_scaling": YARN | {"truncate": False}}, "truncate"),
    (QWEN3_30B_A3B, {"rope_scaling": YARN | {"beta_fast": 1.0}}, "beta_fast"),
    (QWEN3_30B_A3B, {"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "llama3"),
    (QWEN3_30B_A3B, {"quantization_config": {"quant_method": "aqlm"}}, "aqlm"),
    (QWEN35_4B, {"rms_norm_eps": 1e-5}, "rms_norm_eps"),
    (QWEN35_4B, {"linear_key_head_dim": 64}, "linear_key_head_dim"),
    (QWEN35_4B, {"attn_output_gate": False}, "attn_output_gate"),
    (QWEN35_4B, {"attention_bias": True}, "attention_bias"),
    (GPT_OSS_20B, {"swiglu_limit": 5.0}, "swiglu_limit"),
    (GPT_OSS_20B, {"swiglu_alpha": 1.0}, "swiglu_alpha"),
    (GPT_OSS_20B, {"attention_bias": False}, "attention_bias"),
    (DEEPSEEK_V31, {"scoring_func": "softmax"}, "scoring_func"),
    (DEEPSEEK_V31, {"topk_method": "greedy"}, "topk_method"),
    (DEEPSEEK_V31, {"moe_layer_freq": 2}, "moe_layer_freq"),
    (DEEPSEEK_V31, {"attention_bias": True}, "attention_bias"),
    (DEEPSEEK_V31, {"num_key_value_heads": 8}, "num_key_value_heads"),
    (DEEPSEEK_V31, {"routed_scaling_factor": 0.0}, "routed_scaling_factor"),
    (DEEPSEEK_V31, {"n_shared_experts": 0}, "n_shared_experts"),
    (DEEPSEEK_V31, {"num_hidden_layers": 27}, "V2-Lite"),
    (DEEPSEEK_V31, {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, "linear"),
    (DEEPSEEK_V31, {"rope_scaling": DEEPSEEK_V31["rope_scaling"] | {"beta_fast": 1.0}}, "beta_fast"),
    (DEEPSEEK_V31, {"rope_scaling": DEEPSEEK_V31["rope_scaling"] | {"factor": 0.5}}, "factor"),
]


@pytest.mark.parametrize(
    ("config", "change", "named"), REFUSED, ids=[f"{c['architectures'][0]}-{n}" for c, _, n in REFUSED]
)
def test_refused(config: dict[str, Any], change: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedError, match=named):
        metadata(config | change)


@pytest.mark.parametrize(
    ("config", "change", "named"),
    [
        (QWEN35_4B, {"layer_types": ["linear_attention"]}, "layer_types"),
        (QWEN35_4B, {"linear_num_value_heads": 24}, "linear_num_value_heads"),
        (GPT_OSS_20B, {"layer_types": ["chunked_attention"] * 24}, "layer_types"),
        (DEEPSEEK_V31, {"topk_group": 9}, "topk_group"),
        (DEEPSEEK_V31, {"n_group": 7}, "n_group"),
        (DEEPSEEK_V31, {"kv_lora_rank": None}, "kv_lora_rank"),
    ],
)
def test_settings_that_do_not_go_together(
    config: dict[str, Any], change: dict[str, Any], named: str
) -> None:
    with pytest.raises(CheckpointError, match=named):
        metadata(config | change)


class TestStacks:
    """Experts from either layout, one piece for each."""

    CONFIG = QWEN3_30B_A3B | {"num_hidden_layers": 1, "num_experts": 3}
    THEIRS = "model.layers.0.mlp.experts."

    def stacks(self, directory: Path, weights: dict[str, Any], **settings: Any) -> dict[str, Target]:
        write_safetensors(directory / "model.safetensors", weights)
        model = architecture(self.CONFIG | settings, read_tensors(directory / "model.safetensors"))
        return {target.name: target for target in expert_stacks(model, "blk.0.", self.THEIRS, 3)}

    def test_separate_and_fused_experts_are_the_same(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        gate, up = (rng.standard_normal((3, 5, 4), np.float32) for _ in range(2))
        down = rng.standard_normal((3, 4, 5), np.float32)
        separate = {
            f"{self.THEIRS}{expert}.{name}.weight": array[expert]
            for name, array in (("gate_proj", gate), ("up_proj", up), ("down_proj", down))
            for expert in range(3)
        }
        fused = {
            f"{self.THEIRS}gate_up_proj": np.concatenate([gate, up], axis=1),
            f"{self.THEIRS}down_proj": down,
        }
        wanted = {"ffn_gate_exps": gate, "ffn_up_exps": up, "ffn_down_exps": down}
        for number, weights in enumerate((separate, fused)):
            (tmp_path / str(number)).mkdir()
            stacks = self.stacks(tmp_path / str(number), weights)
            assert {name for target in stacks.values() for name in target.sources} == set(weights)
            for name, array in wanted.items():
                target = stacks[f"blk.0.{name}.weight"]
                pieces = list(target.pieces())
                assert [len(piece) for piece in pieces] == [1, 1, 1]
                assert target.shape == array.shape
                assert np.array_equal(np.concatenate(pieces), array)

    def test_a_missing_expert_is_named(self, tmp_path: Path) -> None:
        one = np.zeros((2, 2), np.float32)
        weights = {f"{self.THEIRS}{expert}.gate_proj.weight": one for expert in (0, 2)}
        with pytest.raises(CheckpointError, match=r"experts\.1\.gate_proj"):
            self.stacks(tmp_path, weights)

    def test_the_number_of_fused_experts_must_be_right(self, tmp_path: Path) -> None:
        weights = {f"{self.THEIRS}gate_up_proj": np.zeros((4, 2, 2), np.float32)}
        with pytest.raises(CheckpointError, match="3 experts"):
            self.stacks(tmp_path, weights)

    @pytest.mark.parametrize(("scale", "kind"), [(0.01, gguf.GGMLQuantizationType.Q4_0), (1e-9, None)])
    def test_packed_integers_stay_packed_where_q4_0_holds_them(
        self, tmp_path: Path, scale: float, kind: gguf.GGMLQuantizationType | None
    ) -> None:
        rng = np.random.default_rng(0)
        weights: dict[str, Any] = {}
        for expert in range(3):
            for name in ("gate_proj", "up_proj", "down_proj"):
                stem = f"{self.THEIRS}{expert}.{name}.weight_"
                weights[f"{stem}packed"] = rng.integers(-(2**31), 2**31, (2, 8), np.int32)
                weights[f"{stem}scale"] = (scale * rng.random((2, 2))).astype(ml_dtypes.bfloat16)
                weights[f"{stem}shape"] = np.array([2, 64])
        stacks = self.stacks(tmp_path, weights, quantization_config=KIMI_K26["quantization_config"])
        assert {name for target in stacks.values() for name in target.sources} == set(weights)
        target = stacks["blk.0.ffn_up_exps.weight"]
        assert (target.shape, target.raw_type) == ((3, 2, 64), kind)
        for expert, piece in enumerate(target.pieces()):
            stem = f"{self.THEIRS}{expert}.up_proj.weight_"
            exact = dequantize_int4(weights[f"{stem}packed"], weights[f"{stem}scale"])
            numbers = piece if kind is None else gguf.quants.dequantize(piece, kind)
            assert np.array_equal(numbers[0], exact)

    def test_packed_integers_whose_shape_does_not_fit(self, tmp_path: Path) -> None:
        stem = f"{self.THEIRS}0.gate_proj.weight_"
        weights = {
            f"{stem}packed": np.zeros((2, 8), np.int32),
            f"{stem}scale": np.zeros((2, 2), ml_dtypes.bfloat16),
            f"{stem}shape": np.array([2, 96]),
        }
        with pytest.raises(CheckpointError, match=r"weight_shape says \(2, 96\)"):
            self.stacks(tmp_path, weights, quantization_config=KIMI_K26["quantization_config"])

    def test_packed_integers_without_scales(self, tmp_path: Path) -> None:
        weights = {f"{self.THEIRS}0.gate_proj.weight_packed": np.zeros((2, 8), np.int32)}
        with pytest.raises(CheckpointError, match="weight_scale"):
            self.stacks(tmp_path, weights, quantization_config=KIMI_K26["quantization_config"])

    @pytest.mark.parametrize("scales", [(1, 3), (2, 2), (1, 2, 1)])
    def test_fp8_with_too_many_scales(self, tmp_path: Path, scales: tuple[int, ...]) -> None:
        name = f"{self.THEIRS}0.gate_proj.weight"
        weights = {
            name: np.zeros((64, 200), ml_dtypes.float8_e4m3fn),
            f"{name}_scale_inv": np.zeros(scales, np.float32),
        }
        with pytest.raises(CheckpointError, match="a scale for each block of 128x128"):
            self.stacks(tmp_path, weights, quantization_config=DEEPSEEK_V31["quantization_config"])

    def test_fp8_experts_are_their_numbers(self, tmp_path: Path) -> None:
        weights: dict[str, Any] = {}
        for expert in range(3):
            for name in ("gate_proj", "up_proj", "down_proj"):
                source = f"{self.THEIRS}{expert}.{name}.weight"
                weights[source] = np.full((2, 130), 1.5 + expert / 2, ml_dtypes.float8_e4m3fn)
                weights[f"{source}_scale_inv"] = np.array([[2.0, 0.5]], np.float32)
        stacks = self.stacks(tmp_path, weights, quantization_config=DEEPSEEK_V31["quantization_config"])
        target = stacks["blk.0.ffn_down_exps.weight"]
        assert set(target.sources) <= set(weights)
        for expert, piece in enumerate(target.pieces()):
            row = [(1.5 + expert / 2) * 2] * 128 + [(1.5 + expert / 2) / 2] * 2
            assert np.array_equal(piece, [[row, row]])
