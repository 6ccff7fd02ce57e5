"""Random checkpoints of the families with experts, tiny, in every layout they come in.

Where a checkpoint is packed (FP8, MXFP4, INT4), ``reference`` beside it is the same model with the numbers
that the packed ones stand for, as transformers loads it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    PreTrainedModel,
    Qwen3_5Config,
    Qwen3_5ForCausalLM,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from tests.random_checkpoints.case import REFERENCE, Case, randomize
from tests.random_checkpoints.dense import then
from tests.random_checkpoints.tokenizers import write_tokenizer

Tensors = dict[str, torch.Tensor]

SMALL = {"hidden_size": 64, "num_hidden_layers": 4, "max_position_embeddings": 512}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 64}


def write_qwen3moe(directory: Path, *, fused: bool = False, **settings: Any) -> None:
    """Write Qwen3-MoE: experts one by one, as transformers saves them by default, or fused."""
    values = SMALL | {
        "vocab_size": _vocabulary(directory, "qwen2"),
        "intermediate_size": 128,
        "moe_intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
    }
    _save(Qwen3MoeForCausalLM(Qwen3MoeConfig(**values | settings)), directory, original=not fused)


def write_qwen35(directory: Path, *, vision: bool = False, extra: bool = False, **settings: Any) -> None:
    """Write Qwen3.5, the text model alone or with its vision tower, perhaps with its MTP layer."""
    text = _qwen35_settings(directory) | {"intermediate_size": 96} | settings
    if vision:
        seen = {
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 64,
        }
        config = Qwen3_5Config(text_config=text, vision_config=seen)
        _save(Qwen3_5ForConditionalGeneration(config), directory)
    else:
        _save(Qwen3_5ForCausalLM(Qwen3_5TextConfig(**text)), directory)
    if extra:
        _add(directory, {"mtp.fc.weight": torch.randn(64, 128), "mtp.norm.weight": torch.randn(64)})


def write_qwen35moe(directory: Path, *, fused: bool = False, **settings: Any) -> None:
    """Write Qwen3.5 with experts and a shared one."""
    values = _qwen35_settings(directory) | {
        "moe_intermediate_size": 48,
        "shared_expert_intermediate_size": 40,
        "num_experts": 8,
        "num_experts_per_tok": 3,
    }
    model = Qwen3_5MoeForCausalLM(Qwen3_5MoeTextConfig(**values | settings))
    _save(model, directory, original=not fused)


def write_gptoss(directory: Path, *, packed: bool = False, rounded: bool = False, **settings: Any) -> None:
    """Write gpt-oss with its experts in MXFP4, or in plain numbers.

    Args:
        rounded: the reference has YaRN's ramp with whole bounds, as llama.cpp computes it for every model.
    """
    values = SMALL | {
        "vocab_size": _vocabulary(directory, "gpt-oss"),
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_local_experts": 8,
        "num_experts_per_tok": 3,
        "sliding_window": 16,
    }
    _save(GptOssForCausalLM(GptOssConfig(**values | settings)), directory)
    if packed:
        _pack(directory, _pack_mxfp4, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    if rounded:
        reference = _copy_reference(directory)
        config = json.loads((reference / "config.json").read_text())
        config["rope_parameters"]["truncate"] = True
        (reference / "config.json").write_text(json.dumps(config))


def write_deepseek(
    directory: Path, *, packed: bool = False, extra: bool = False, fused: bool = False, **settings: Any
) -> None:
    """Write DeepSeek-V3, perhaps in FP8 blocks, perhaps with its next-token-prediction layer."""
    values = _deepseek_settings(directory, "deepseek-v3") | settings
    _save(DeepseekV3ForCausalLM(DeepseekV3Config(**values)), directory, original=not fused)
    if packed:
        quantization = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
        _pack(directory, _pack_fp8, quantization)
    if extra:
        _add(directory, {f"model.layers.{values['num_hidden_layers']}.enorm.weight": torch.randn(64)})


def write_kimi(directory: Path, *, packed: bool = True, **settings: Any) -> None:
    """Write Kimi-K2.5: DeepSeek-V3's architecture with packed INT4 experts and the names around it."""
    values = _deepseek_settings(directory, "kimi-k2") | {"n_group": 1, "topk_group": 1} | settings
    _save(DeepseekV3ForCausalLM(DeepseekV3Config(**values)), directory)
    if packed:
        weights = {"num_bits": 4, "type": "int", "symmetric": True, "group_size": 32, "strategy": "group"}
        quantization = {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"weights": weights, "input_activations": None}},
        }
        _pack(directory, _pack_int4, quantization)
    else:
        _copy_reference(directory)
    tensors = load_file(directory / "model.safetensors")
    renamed = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
    renamed["vision_tower.patch_embed.proj.weight"] = torch.randn(4, 4)
    save_file(renamed, directory / "model.safetensors", {"format": "pt"})
    text = json.loads((directory / "config.json").read_text())
    config = {"architectures": ["KimiK25ForConditionalGeneration"], "model_type": "kimi_k25"}
    (directory / "config.json").write_text(json.dumps(config | {"text_config": text}))


def _qwen35_settings(directory: Path) -> dict[str, Any]:
    return SMALL | {
        "vocab_size": _vocabulary(directory, "qwen35"),
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    }


def _deepseek_settings(directory: Path, tokenizer: str) -> dict[str, Any]:
    return SMALL | {
        "vocab_size": _vocabulary(directory, tokenizer),
        "intermediate_size": 192,
        "moe_intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "n_routed_experts": 16,
        "num_experts_per_tok": 4,
        "n_group": 4,
        "topk_group": 2,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 32,
        "q_lora_rank": 48,
        "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 24,
        "v_head_dim": 32,
        "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
    }


def _vocabulary(directory: Path, kind: str) -> int:
    """Write a tokenizer; return the number of embeddings, a few more than it has tokens."""
    return -(-write_tokenizer(directory, kind).n_tokens // 32) * 32


def _save(model: PreTrainedModel, directory: Path, *, original: bool = True) -> None:
    """Save a model with random numbers; the tokenizer's own generation_config.json stays."""
    randomize(model)
    generation = (directory / "generation_config.json").read_text()
    model.save_pretrained(directory, save_original_format=original)
    (directory / "generation_config.json").write_text(generation)


def _add(directory: Path, tensors: Tensors) -> None:
    path = directory / "model.safetensors"
    save_file(load_file(path) | tensors, path, {"format": "pt"})


def _copy_reference(directory: Path) -> Path:
    """Keep the checkpoint as it is in ``reference``."""
    reference = directory / REFERENCE
    reference.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(directory / name, reference / name)
    return reference


def _pack(
    directory: Path, pack: Callable[[str, torch.Tensor], tuple[Tensors, torch.Tensor] | None], how: Any
) -> None:
    """Pack a checkpoint's matrices; keep the same model unpacked in ``reference``."""
    config = json.loads((directory / "config.json").read_text())
    packed, plain = Tensors(), Tensors()
    for name, tensor in load_file(directory / "model.safetensors").items():
        parts, stands_for = pack(name, tensor) or ({name: tensor}, tensor)
        packed |= parts
        plain[name] = stands_for.contiguous()
    save_file(plain, _copy_reference(directory) / "model.safetensors", {"format": "pt"})
    save_file(packed, directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": how}))


def _pack_fp8(name: str, matrix: torch.Tensor) -> tuple[Tensors, torch.Tensor] | None:
    """Blocks of 128x128 with the largest number at 448, as DeepSeek-V3 is published."""
    if not name.endswith("_proj.weight") and not name.endswith("_mqa.weight"):
        return None
    rows, columns = matrix.shape
    scales = torch.empty(-(-rows // 128), -(-columns // 128))
    values, plain = torch.empty(rows, columns, dtype=torch.float8_e4m3fn), torch.empty(rows, columns)
    for i, j in np.ndindex(*scales.shape):
        block = (slice(128 * i, 128 * i + 128), slice(128 * j, 128 * j + 128))
        scales[i, j] = matrix[block].abs().max() / 448
        values[block] = (matrix[block] / scales[i, j]).to(torch.float8_e4m3fn)
        plain[block] = values[block].float() * scales[i, j]
    return {name: values, f"{name}_scale_inv": scales}, plain


def _pack_int4(name: str, matrix: torch.Tensor) -> tuple[Tensors, torch.Tensor] | None:
    """Groups of 32 in a row with a scale, -8 to 7, in the layout of compressed-tensors."""
    if ".mlp.experts." not in name:
        return None
    groups = matrix.reshape(len(matrix), -1, 32)
    scales = (groups.abs().amax(-1) / 7.5).to(torch.bfloat16)
    values = (groups / scales[..., None].float()).round().clamp(-8, 7)
    words = (values + 8).to(torch.int64).reshape(len(matrix), -1, 8) << torch.arange(0, 32, 4)
    whole = words.sum(-1)
    signed = torch.where(whole >= 2**31, whole - 2**32, whole).to(torch.int32)
    parts = {"packed": signed, "scale": scales, "shape": torch.tensor(matrix.shape, dtype=torch.int64)}
    plain = (values * scales[..., None].float()).reshape(matrix.shape)
    return {f"{name}_{part}": tensor for part, tensor in parts.items()}, plain


def _pack_mxfp4(name: str, experts: torch.Tensor) -> tuple[Tensors, torch.Tensor] | None:
    """Groups of 32 inputs with a power of two as their scale, in gpt-oss's layout."""
    if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
        return None
    levels = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    levels = torch.cat([levels, -levels])
    outputs_first = experts.transpose(1, 2)
    groups = outputs_first.reshape(*outputs_first.shape[:2], -1, 32)
    exponents = torch.ceil(torch.log2(groups.abs().amax(-1) / 6))
    scaled = groups / torch.exp2(exponents)[..., None]
    codes = (scaled[..., None] - levels).abs().argmin(-1).to(torch.uint8)
    plain = (levels[codes.long()] * torch.exp2(exponents)[..., None]).reshape(outputs_first.shape)
    parts = {
        f"{name}_blocks": codes[..., ::2] | codes[..., 1::2] << 4,
        f"{name}_scales": (exponents + 127).to(torch.uint8),
    }
    return parts, plain.transpose(1, 2)


PACKED = "activations have 16 bits beside packed matrices; see the unpacked case for the rest"
ROUNDING = "float32's own error: transformers in float64 is up to 8e-5 from either"
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 5e4}

CASES: tuple[Case, ...] = (
    Case("qwen3moe", "experts one by one", write_qwen3moe),
    Case("qwen3moe", "fused experts", partial(write_qwen3moe, fused=True)),
    Case("qwen3moe", "tied", partial(write_qwen3moe, tie_word_embeddings=True)),
    Case("qwen3moe", "yarn, transformers 4", then(partial(write_qwen3moe, rope_parameters=dict(YARN)))),
    Case("qwen35", "dense", write_qwen35),
    Case(
        "qwen35",
        "dense, tied, transformers 4",
        then(partial(write_qwen35, tie_word_embeddings=True)),
        2e-4,
        ROUNDING,
    ),
    Case("qwen35", "dense, with vision", partial(write_qwen35, vision=True)),
    Case("qwen35", "dense, with an MTP layer", partial(write_qwen35, extra=True)),
    Case(
        "qwen35",
        "as many key as value heads",
        partial(write_qwen35, linear_num_value_heads=2),
        2e-4,
        ROUNDING,
    ),
    Case("qwen35", "experts one by one", write_qwen35moe),
    Case("qwen35", "fused experts", partial(write_qwen35moe, fused=True)),
    Case("gptoss", "plain experts", partial(write_gptoss, rope_parameters=dict(YARN))),
    Case("gptoss", "plain experts, tied", partial(write_gptoss, tie_word_embeddings=True, rounded=True)),
    Case("gptoss", "published yarn, transformers 4", then(partial(write_gptoss, rounded=True))),
    Case(
        "gptoss",
        "MXFP4",
        partial(write_gptoss, rope_parameters=dict(YARN), packed=True),
        2e-3,
        PACKED,
        options={"batch_invariant": True},
    ),
    Case(
        "gptoss",
        "MXFP4 unpacked",
        partial(write_gptoss, rope_parameters=dict(YARN), packed=True),
        unpacks=True,
    ),
    Case("deepseek", "4 groups of experts", write_deepseek),
    Case("deepseek", "fused experts", partial(write_deepseek, fused=True)),
    Case("deepseek", "transformers 4", then(write_deepseek)),
    Case("deepseek", "queries of full rank", partial(write_deepseek, q_lora_rank=None)),
    Case("deepseek", "rotated halves", partial(write_deepseek, rope_interleave=False)),
    Case("deepseek", "plain rotation", partial(write_deepseek, rope_parameters=PLAIN_ROPE)),
    Case("deepseek", "yarn without mscale", partial(write_deepseek, rope_parameters=dict(YARN))),
    Case(
        "deepseek",
        "yarn with two mscales",
        partial(write_deepseek, rope_parameters=YARN | {"mscale": 0.707, "mscale_all_dim": 1.3}),
    ),
    Case(
        "deepseek",
        "one group, weights as they are",
        partial(write_deepseek, n_group=1, topk_group=1, norm_topk_prob=False),
    ),
    Case("deepseek", "with an MTP layer", partial(write_deepseek, extra=True)),
    Case("deepseek", "no MTP layer announced", partial(write_deepseek, num_mtp_layers=0)),
    Case("deepseek", "FP8 blocks", partial(write_deepseek, packed=True)),
    Case("deepseek", "Kimi-K2.5, plain", partial(write_kimi, packed=False)),
    Case("deepseek", "Kimi-K2.5, INT4", write_kimi, 2e-3, PACKED, options={"batch_invariant": True}),
    Case("deepseek", "Kimi-K2.5, INT4 unpacked", write_kimi, unpacks=True),
)
