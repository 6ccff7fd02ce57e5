"""Random checkpoints of the families that are a table and little else: a recipe each, and one writer."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GenerationConfig

from tests.random_checkpoints.case import Case, randomize
from tests.random_checkpoints.dense import YARN
from tests.random_checkpoints.tokenizers import write_tokenizer

Settings = Mapping[str, Any]

SIZES: Settings = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
EXPERTS: Settings = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SIMPLE_VISION: Settings = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 32,
}
VISION: Settings = {**SIMPLE_VISION, "deepstack_visual_indexes": [0]}
GLM_VISION: Settings = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 32,
    "projection_intermediate_size": 16,
    "image_size": 28,
}
PIXTRAL: Settings = {
    "model_type": "pixtral",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
MULTIPLIERS: Settings = {
    "attention_multiplier": 0.2,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}
DELTA_NETS: Settings = {
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "partial_rotary_factor": 0.25,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
LIGHTNING: Settings = {
    "num_hidden_layers": 6,
    "layers_block_type": [*["linear_attention", "moe"] * 2, "full_attention", "moe"],
    "head_dim": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "ssm_state_size": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 40,
    "routed_scaling_factor": 2.5,
    "attention_bias": True,
}
RADIO: Settings = {
    "model_type": "radio",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_img_size": 32,
    "image_size": 32,
    "video_temporal_patch_size": 2,
}
MULTIPLIED = ("embedding_multiplier", "lm_head_multiplier", "key_multiplier", "ssm_in_multiplier")
CONVOLUTIONS: Settings = {
    "num_hidden_layers": 3,
    "layer_types": ["conv", "full_attention", "conv"],
}
SCALED: Settings = {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 16}
SCALED = {**SCALED, "llama_4_scaling_beta": 0.3}
LATENT: Settings = {
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 16,
    "index_n_heads": 16,
    "index_head_dim": 64,
    "index_topk": 20,
}
VARIANCE = (
    "with llama.cpp's cut of activations, by a variance over one less than their number: 3e-2 from "
    "transformers for 2,048 of them"
)
NEARER = "float32's own error: ours is up to {} from transformers in float64, transformers in float32 {}"
LATENT_NORMS = (
    "transformers norms latent queries and keys with 1e-6 whatever the config says; llama.cpp with 1e-5"
)


@dataclass(frozen=True)
class Recipe:
    """How a family's checkpoint is made.

    Attributes:
        model: the name of transformers' class.
        config: the name of its configuration.
        settings: that are not those of ``SIZES``.
        kind: of tokenizer.
        outer: the configuration around that of the text, and its other parts; None where there is none.
    """

    model: str
    config: str
    settings: Settings = field(default_factory=dict)
    kind: str = "qwen2"
    outer: tuple[str, Settings] | None = None


RECIPES: dict[str, Recipe] = {
    "qwen3vl": Recipe(
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLTextConfig",
        {"head_dim": 16},
        outer=("Qwen3VLConfig", {"vision_config": VISION}),
    ),
    "qwen3vlmoe": Recipe(
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3VLMoeTextConfig",
        {**EXPERTS, "head_dim": 16},
        outer=("Qwen3VLMoeConfig", {"vision_config": VISION}),
    ),
    "qwen36": Recipe(
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5TextConfig",
        DELTA_NETS,
        outer=("Qwen3_5Config", {"vision_config": SIMPLE_VISION}),
    ),
    "qwen36moe": Recipe(
        "Qwen3_5MoeForConditionalGeneration",
        "Qwen3_5MoeTextConfig",
        {**DELTA_NETS, **EXPERTS, "shared_expert_intermediate_size": 24, "linear_num_value_heads": 4},
        outer=("Qwen3_5MoeConfig", {"vision_config": SIMPLE_VISION}),
    ),
    "nemotron35": Recipe("NemotronHForCausalLM", "NemotronHConfig", LIGHTNING, "tekken"),
    "nemotron_omni": Recipe(
        "NemotronH_Omni_Reasoning_V3",
        "NemotronHConfig",
        {**LIGHTNING, "moe_latent_size": 16},
        "tekken",
        ("NemotronH_Omni_Reasoning_V3_Config", {"vision_config": RADIO, "vision_hidden_size": 16}),
    ),
    "qwen2moe": Recipe(
        "Qwen2MoeForCausalLM", "Qwen2MoeConfig", {**EXPERTS, "shared_expert_intermediate_size": 40}
    ),
    "olmo3": Recipe(
        "Olmo3ForCausalLM", "Olmo3Config", {"num_hidden_layers": 5, "sliding_window": 16}, "olmo2"
    ),
    "olmoe": Recipe("OlmoeForCausalLM", "OlmoeConfig", {**EXPERTS, "num_key_value_heads": 4}, "olmo2"),
    "gemma": Recipe("GemmaForCausalLM", "GemmaConfig", {"head_dim": 16}, "gemma"),
    "seed_oss": Recipe("SeedOssForCausalLM", "SeedOssConfig", {"head_dim": 16}),
    "apertus": Recipe("ApertusForCausalLM", "ApertusConfig", {}, "tekken"),
    "ernie": Recipe("Ernie4_5ForCausalLM", "Ernie4_5Config", {"head_dim": 16}, "llama2"),
    "erniemoe": Recipe(
        "Ernie4_5_MoeForCausalLM",
        "Ernie4_5_MoeConfig",
        {"moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": 24, "moe_layer_end_index": 9},
        "llama2",
    ),
    "hunyuan": Recipe("HunYuanDenseV1ForCausalLM", "HunYuanDenseV1Config", {"head_dim": 16}),
    "hunyuanmoe": Recipe(
        "HunYuanMoEV1ForCausalLM", "HunYuanMoEV1Config", {"num_experts": 6, "moe_topk": 2, "head_dim": 16}
    ),
    "exaone4": Recipe(
        "Exaone4ForCausalLM",
        "Exaone4Config",
        {"sliding_window": None, "layer_types": ["full_attention"] * 2},
    ),
    "glm4moe": Recipe(
        "Glm4MoeForCausalLM",
        "Glm4MoeConfig",
        {
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 24,
            "head_dim": 16,
            "routed_scaling_factor": 1.5,
        },
        "llama3",
    ),
    "minimax": Recipe(
        "MiniMaxM2ForCausalLM",
        "MiniMaxM2Config",
        {"num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 16, "rotary_dim": 8},
    ),
    "granite": Recipe("GraniteForCausalLM", "GraniteConfig", MULTIPLIERS, "llama3"),
    "granitemoe": Recipe(
        "GraniteMoeForCausalLM",
        "GraniteMoeConfig",
        {**MULTIPLIERS, "num_local_experts": 6, "num_experts_per_tok": 2},
        "llama3",
    ),
    "graniteshared": Recipe(
        "GraniteMoeSharedForCausalLM",
        "GraniteMoeSharedConfig",
        {**MULTIPLIERS, "num_local_experts": 6, "num_experts_per_tok": 2, "shared_intermediate_size": 40},
        "llama3",
    ),
    "lfm2": Recipe("Lfm2ForCausalLM", "Lfm2Config", {**CONVOLUTIONS, "block_multiple_of": 16}),
    "lfm2moe": Recipe(
        "Lfm2MoeForCausalLM", "Lfm2MoeConfig", {**CONVOLUTIONS, **EXPERTS, "num_dense_layers": 1}
    ),
    "ministral3": Recipe(
        "Ministral3ForCausalLM", "Ministral3Config", {"head_dim": 16, "rope_parameters": SCALED}, "tekken"
    ),
    "qwen3next": Recipe(
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        {
            **EXPERTS,
            "shared_expert_intermediate_size": 40,
            "num_hidden_layers": 4,
            "head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
    ),
    "deepseek32": Recipe("DeepseekV32ForCausalLM", "DeepseekV32Config", LATENT, "deepseek-v3"),
    "glm_dsa": Recipe(
        "GlmMoeDsaForCausalLM", "GlmMoeDsaConfig", {**LATENT, "n_group": 1, "topk_group": 1}, "llama3"
    ),
    "kimi_linear": Recipe(
        "KimiLinearForCausalLM",
        "KimiLinearConfig",
        {
            "num_hidden_layers": 3,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "num_key_value_heads": 4,
            "moe_intermediate_size": 24,
            "num_local_experts": 8,
            "num_experts_per_tok": 3,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 12,
            "v_head_dim": 16,
            "linear_head_dim": 16,
            "linear_num_heads": 4,
        },
        "kimi-k2",
    ),
    "granitehybrid": Recipe(
        "GraniteMoeHybridForCausalLM",
        "GraniteMoeHybridConfig",
        {
            **MULTIPLIERS,
            "num_hidden_layers": 3,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 40,
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_d_state": 16,
            "position_embedding_type": "nope",
        },
        "llama3",
    ),
    "llama4": Recipe(
        "Llama4ForCausalLM",
        "Llama4TextConfig",
        {
            "num_hidden_layers": 5,
            "head_dim": 16,
            "intermediate_size_mlp": 40,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
        },
        "llama3",
    ),
    "deepseek4": Recipe(
        "DeepseekV4ForCausalLM",
        "DeepseekV4Config",
        {
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "moe_intermediate_size": 24,
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
            "head_dim": 64,
            "partial_rotary_factor": 0.25,
            "q_lora_rank": 24,
            "layer_types": [
                "sliding_attention",
                "compressed_sparse_attention",
                "heavily_compressed_attention",
                "compressed_sparse_attention",
            ],
            "mlp_layer_types": ["hash_moe", "moe", "moe", "moe"],
            "sliding_window": 16,
            "o_groups": 2,
            "o_lora_rank": 12,
            "index_n_heads": 16,
            "index_head_dim": 64,
            "index_topk": 6,
            "swiglu_limit": 1.0,
            "hc_sinkhorn_iters": 4,
        },
        "deepseek-v3",
    ),
    "glm5_next": Recipe(
        "Glm5NextForConditionalGeneration",
        "Glm5NextTextConfig",
        {
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "layer_types": ["linear_attention", "indexed_attention"] * 2,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
            "indexer_types": ["full", "full", "full", "full"],
            "moe_intermediate_size": 24,
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
            "kv_lora_rank": 16,
            "q_lora_rank": 24,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "index_n_heads": 16,
            "index_head_dim": 64,
            "index_topk": 16,
            "index_kpool": 4,
            "linear_head_dim": 16,
            "linear_num_heads": 4,
            "swiglu_limit": 1.0,
            "hc_sinkhorn_iters": 4,
        },
        "llama3",
        ("Glm5NextConfig", {"vision_config": GLM_VISION}),
    ),
    "gemma4": Recipe(
        "Gemma4ForCausalLM",
        "Gemma4TextConfig",
        {
            "num_hidden_layers": 6,
            "layer_types": [*["sliding_attention", "sliding_attention", "full_attention"] * 2],
            "head_dim": 8,
            "global_head_dim": 16,
            "sliding_window": 16,
            "hidden_size_per_layer_input": 12,
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "final_logit_softcapping": 20.0,
        },
        "gemma",
    ),
    "gemma3n": Recipe(
        "Gemma3nForCausalLM",
        "Gemma3nTextConfig",
        {
            "num_hidden_layers": 5,
            "num_kv_shared_layers": 0,
            "activation_sparsity_pattern": [0.95] * 5,
            "hidden_size_per_layer_input": 256,
            "intermediate_size": 2048,
            "head_dim": 16,
            "sliding_window": 16,
        },
        "gemma",
    ),
    "mistral4": Recipe(
        "Mistral4ForCausalLM",
        "Mistral4Config",
        {**LATENT, "first_k_dense_replace": 0, "rope_parameters": SCALED, "routed_scaling_factor": 1.5},
        "tekken",
    ),
    "mistral4vl": Recipe(
        "Mistral3ForConditionalGeneration",
        "Mistral4Config",
        LATENT,
        "tekken",
        ("Mistral3Config", {"vision_config": PIXTRAL}),
    ),
    "falcon_h1": Recipe(
        "FalconH1ForCausalLM",
        "FalconH1Config",
        {
            "mamba_d_ssm": 64,
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_d_state": 16,
            "mamba_n_groups": 1,
            "embedding_multiplier": 3.0,
            "lm_head_multiplier": 0.4,
            "key_multiplier": 0.7,
            "attention_in_multiplier": 1.3,
            "attention_out_multiplier": 0.6,
            "ssm_in_multiplier": 0.8,
            "ssm_out_multiplier": 1.2,
            "mlp_multipliers": [0.9, 0.7],
            "ssm_multipliers": [0.7, 1.1, 0.6, 1.2, 0.9],
        },
    ),
    "starcoder2": Recipe("Starcoder2ForCausalLM", "Starcoder2Config", {}, "gpt2"),
}


def write(name: str, directory: Path, *, fused: bool = False, **settings: Any) -> None:
    """Write a recipe's checkpoint.

    Args:
        name: a key of ``RECIPES``.
        fused: save experts as transformers 5 has them, not as they are published.
        settings: others than the recipe's.
    """
    recipe = RECIPES[name]
    written = write_tokenizer(directory, recipe.kind)
    sizes = {**SIZES, **recipe.settings, "vocab_size": written.n_tokens, **settings}
    sizes = deepcopy(sizes)  # configurations add to tables that they are given
    if "hidden_size_per_layer_input" in sizes:
        sizes.setdefault("vocab_size_per_layer_input", written.n_tokens)
    ids = {"bos_token_id": written.bos_token_id, "eos_token_id": written.eos_token_id, "pad_token_id": None}
    made = getattr(transformers, recipe.config)(**sizes | ids)
    if recipe.outer is not None:
        config, others = recipe.outer
        tied = {"tie_word_embeddings": sizes.get("tie_word_embeddings", False)}
        made = getattr(transformers, config)(text_config=made.to_dict(), **others, **tied)
    model = getattr(transformers, recipe.model)(made)
    randomize(model)
    for name, choices in model.named_buffers():
        if name.endswith("tid2eid"):  # the experts of each token, no two the same
            choices.copy_(torch.rand(len(choices), 8).argsort(-1)[:, : choices.shape[1]])
    model.generation_config = GenerationConfig(eos_token_id=written.eos_token_id)
    model.save_pretrained(directory, save_original_format=not fused)


def case(family: str, variant: str, name: str, *changes: Any, n_tokens: int = 64, **settings: Any) -> Case:
    """Return a case of the table: a recipe, and what is particular about this one."""
    change = _divide_by_one_less if family == "gemma3n" else None
    return Case(
        family, variant, partial(write, name, **settings), *changes, n_tokens=n_tokens, change=change
    )


def _divide_by_one_less(model: Any) -> None:
    """Cut off Gemma 3n's activations as llama.cpp does: by their variance as of a sample."""

    def cut(share: float, inputs: torch.Tensor) -> torch.Tensor:
        factor = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(share))
        mean, deviation = inputs.mean(-1, keepdim=True), inputs.std(-1, keepdim=True, unbiased=True)
        return torch.relu(inputs - (mean + factor * deviation))

    for layer in model.model.layers:
        layer.mlp._gaussian_topk = partial(cut, layer.mlp.activation_sparsity)


CASES: tuple[Case, ...] = (
    case("qwen3vl", "dense", "qwen3vl"),
    case(
        "qwen3vl",
        "dense, tied, heads of 12, three layers",
        "qwen3vl",
        tie_word_embeddings=True,
        head_dim=12,
        num_hidden_layers=3,
    ),
    case("qwen3vl", "experts", "qwen3vlmoe"),
    case("qwen3vl", "experts, fused", "qwen3vlmoe", fused=True),
    case("qwen35", "Qwen3.6 and 3.8, dense, with vision", "qwen36", 3e-4, NEARER.format("6e-5", "2.3e-4")),
    case("qwen35", "Qwen3.6, experts, with vision", "qwen36moe"),
    case("nemotron_h", "3.5 Lightning", "nemotron35"),
    case("nemotron_h", "3.5 Super-VL", "nemotron_omni"),
    case("qwen2moe", "experts", "qwen2moe"),
    case("qwen2moe", "tied, no biases", "qwen2moe", tie_word_embeddings=True, qkv_bias=False),
    case("olmo2", "OLMo 3", "olmo3"),
    case(
        "olmo2", "OLMo 3, yarn", "olmo3", rope_scaling={**YARN, "rope_theta": 5e5, "attention_factor": 1.2}
    ),
    case("olmo2", "OLMoE", "olmoe"),
    case("gemma", "Gemma 1", "gemma"),
    case("seed_oss", "biases", "seed_oss"),
    case("seed_oss", "tied, no biases", "seed_oss", tie_word_embeddings=True, attention_bias=False),
    case("apertus", "xIELU", "apertus"),
    case("apertus", "tied, biases", "apertus", tie_word_embeddings=True, attention_bias=True),
    case("ernie4_5", "dense", "ernie"),
    case("ernie4_5", "experts", "erniemoe"),
    case(
        "ernie4_5",
        "experts, untied, none shared",
        "erniemoe",
        tie_word_embeddings=False,
        moe_num_shared_experts=0,
    ),
    case("hunyuan", "dense", "hunyuan"),
    case(
        "hunyuan",
        "dense, tied, alpha",
        "hunyuan",
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 50.0, "factor": 1.0},
    ),
    case("hunyuan", "experts", "hunyuanmoe"),
    case("exaone4", "no windows", "exaone4"),
    case(
        "exaone4",
        "windows",
        "exaone4",
        num_hidden_layers=64,
        layer_types=None,
        sliding_window=16,
        hidden_size=16,
        num_attention_heads=2,
    ),
    case("glm4moe", "dense layer and experts", "glm4moe"),
    case(
        "glm4moe",
        "norms of heads, biases, groups",
        "glm4moe",
        use_qk_norm=True,
        attention_bias=True,
        n_group=4,
        topk_group=2,
        num_hidden_layers=3,
    ),
    case("minimax_m2", "half of each head turns", "minimax"),
    case("minimax_m2", "fused", "minimax", fused=True),
    case("granite", "four multipliers", "granite"),
    case(
        "granite", "tied, biases", "granite", tie_word_embeddings=True, attention_bias=True, mlp_bias=True
    ),
    case("granite", "experts", "granitemoe"),
    case("granite", "experts, fused, tied", "granitemoe", fused=True, tie_word_embeddings=True),
    case("granite", "experts and a shared one", "graniteshared"),
    case("lfm2", "dense", "lfm2"),
    case(
        "lfm2",
        "dense, untied, own width",
        "lfm2",
        tie_word_embeddings=False,
        block_auto_adjust_ff_dim=False,
        conv_L_cache=4,
    ),
    case("lfm2", "experts", "lfm2moe"),
    case("lfm2", "experts, fused", "lfm2moe", fused=True),
    case("ministral3", "scaled queries", "ministral3"),
    case(
        "ministral3",
        "tied, plain rotation",
        "ministral3",
        tie_word_embeddings=True,
        rope_parameters={**SCALED, "rope_type": "default", "llama_4_scaling_beta": 0.0},
    ),
    case("qwen3next", "experts", "qwen3next", 2e-4, NEARER.format("3.4e-5", "7.7e-5")),
    case(
        "qwen3next", "fused, as many key as value heads", "qwen3next", fused=True, linear_num_value_heads=2
    ),
    case("deepseek_sparse", "DeepSeek-V3.2", "deepseek32"),
    case(
        "deepseek_sparse",
        "DeepSeek-V3.2, yarn",
        "deepseek32",
        rope_parameters={**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    ),
    case("deepseek_sparse", "GLM-5", "glm_dsa", 5e-4, LATENT_NORMS),
    case("deepseek_sparse", "GLM-5, epsilon of 1e-6", "glm_dsa", rms_norm_eps=1e-6),
    case(
        "deepseek_sparse",
        "GLM-5, shared choices",
        "glm_dsa",
        indexer_types=["full", "shared", "full"],
        rms_norm_eps=1e-6,
    ),
    case("kimi_linear", "published names", "kimi_linear"),
    case("kimi_linear", "fused, epsilon of 1e-6", "kimi_linear", fused=True, rms_norm_eps=1e-6),
    case("granite_hybrid", "experts", "granitehybrid"),
    case(
        "granite_hybrid",
        "dense, rotated, tied",
        "granitehybrid",
        num_local_experts=0,
        num_experts_per_tok=0,
        position_embedding_type="rope",
        tie_word_embeddings=True,
        mamba_n_groups=2,
        mamba_conv_bias=False,
    ),
    case("llama4", "experts", "llama4"),
    case(
        "llama4",
        "every other layer dense, tied",
        "llama4",
        interleave_moe_layer_step=2,
        tie_word_embeddings=True,
        num_experts_per_tok=1,
    ),
    case("deepseek4", "each kind of layer", "deepseek4", n_tokens=300),
    case(
        "deepseek4",
        "fused, yarn, no choices by ids",
        "deepseek4",
        n_tokens=160,
        fused=True,
        mlp_layer_types=["moe"] * 4,
        rope_parameters={**YARN, "rope_theta": 1e4},
        o_groups=4,
    ),
    case("glm5_next", "with vision", "glm5_next"),
    case(
        "glm5_next",
        "fused, a shared choice, no bound",
        "glm5_next",
        fused=True,
        layer_types=["linear_attention", *["indexed_attention"] * 2, "linear_attention"],
        indexer_types=["full", "full", "shared", "full"],
        linear_lower_bound=None,
        index_head_dim=24,
        n_group=4,
        topk_group=2,
    ),
    case("gemma4", "shared caches, embeddings for each layer", "gemma4"),
    case(
        "gemma4",
        "experts, keys that are values",
        "gemma4",
        num_hidden_layers=3,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        num_kv_shared_layers=0,
        hidden_size_per_layer_input=0,
        attention_k_eq_v=True,
        num_global_key_value_heads=1,
        enable_moe_block=True,
        num_experts=6,
        top_k_experts=2,
        moe_intermediate_size=24,
        final_logit_softcapping=None,
    ),
    case("gemma3n", "five layers", "gemma3n", 1e-4, VARIANCE),
    case(
        "gemma3n",
        "shared caches",
        "gemma3n",
        1e-3,
        f"{VARIANCE}; 22 layers amplify rounding",
        num_hidden_layers=22,
        num_kv_shared_layers=2,
        vocab_size_per_layer_input=400,
        activation_sparsity_pattern=None,
        intermediate_size=512,
    ),
    case("mistral4", "scaled queries", "mistral4"),
    case(
        "mistral4",
        "with vision, one group, a dense layer, no compressed queries",
        "mistral4vl",
        fused=True,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=None,
        rope_parameters={**SCALED, "llama_4_scaling_beta": 0.0},
    ),
    case("falcon_h1", "multipliers", "falcon_h1"),
    case(
        "falcon_h1",
        "tied, normed, two groups, no multipliers",
        "falcon_h1",
        tie_word_embeddings=True,
        mamba_rms_norm=True,
        mamba_norm_before_gate=False,
        mamba_n_groups=2,
        mamba_conv_bias=False,
        **dict.fromkeys(MULTIPLIED, 1.0),
    ),
    case("starcoder2", "biases", "starcoder2"),
    case(
        "starcoder2",
        "untied, no biases",
        "starcoder2",
        tie_word_embeddings=False,
        use_bias=False,
    ),
)
