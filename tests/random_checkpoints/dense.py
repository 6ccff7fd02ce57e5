"""Random checkpoints of the dense families and the hybrids, tiny, of the real architectures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import transformers

from tests.random_checkpoints.case import Case, rewrite_config, save_random

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}


def longrope(n_pairs: int, original: int = 32) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1 + 0.05 * i for i in range(n_pairs)],
        "long_factor": [1.5 + 0.5 * i for i in range(n_pairs)],
        "original_max_position_embeddings": original,
    }


def as_transformers_4(values: dict[str, Any]) -> None:
    """Write a config as transformers 4 did: the rotation beside the other settings."""
    tables = [values, values["text_config"]] if "text_config" in values else [values]
    for table in tables:
        rope = table.pop("rope_parameters", None) or {}
        if "full_attention" in rope:
            table["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
            rope = rope["full_attention"]
        if "rope_theta" in rope:
            table["rope_theta"] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            table["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        if rope.get("rope_type", "default") != "default":
            table["rope_scaling"] = rope
        table["torch_dtype"] = table.pop("dtype", "float32")
    values["transformers_version"] = "4.51.0"


def write_llama(directory: Path, kind: str = "llama3", **settings: Any) -> None:
    save_random(directory, transformers.LlamaForCausalLM, transformers.LlamaConfig, kind, SIZES | settings)


def write_mistral(directory: Path, **settings: Any) -> None:
    sizes = SIZES | {"head_dim": 32, "sliding_window": None}
    save_random(
        directory, transformers.MistralForCausalLM, transformers.MistralConfig, "mistral", sizes | settings
    )


def write_smollm3(directory: Path, **settings: Any) -> None:
    sizes = SIZES | {"num_hidden_layers": 5}
    save_random(
        directory, transformers.SmolLM3ForCausalLM, transformers.SmolLM3Config, "llama3", sizes | settings
    )


def write_qwen2(directory: Path, **settings: Any) -> None:
    save_random(
        directory, transformers.Qwen2ForCausalLM, transformers.Qwen2Config, "qwen2", SIZES | settings
    )


def write_qwen3(directory: Path, **settings: Any) -> None:
    sizes = SIZES | {"head_dim": 32}
    save_random(
        directory, transformers.Qwen3ForCausalLM, transformers.Qwen3Config, "qwen2", sizes | settings
    )


def write_gemma2(directory: Path, **settings: Any) -> None:
    sizes = SIZES | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}
    save_random(
        directory,
        transformers.Gemma2ForCausalLM,
        transformers.Gemma2Config,
        "gemma",
        sizes | settings,
    )


def write_gemma3(directory: Path, **settings: Any) -> None:
    sizes = SIZES | {
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 16,
        "num_hidden_layers": 7,
    }
    save_random(
        directory,
        transformers.Gemma3ForCausalLM,
        transformers.Gemma3TextConfig,
        "gemma",
        sizes | settings,
    )


def write_gemma3_vision(directory: Path, **settings: Any) -> None:
    """The text part of a checkpoint that also has a vision tower."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    text = SIZES | {
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 16,
        "num_hidden_layers": 7,
    }

    def config(**values: Any) -> transformers.Gemma3Config:
        return transformers.Gemma3Config(
            text_config=values, vision_config=vision, mm_tokens_per_image=4, image_token_index=5
        )

    save_random(
        directory,
        transformers.Gemma3ForConditionalGeneration,
        config,
        "gemma",
        text | settings,
    )


def write_phi3(directory: Path, kind: str = "phi-3", **settings: Any) -> None:
    save_random(directory, transformers.Phi3ForCausalLM, transformers.Phi3Config, kind, SIZES | settings)


def write_olmo2(directory: Path, **settings: Any) -> None:
    save_random(
        directory, transformers.Olmo2ForCausalLM, transformers.Olmo2Config, "olmo2", SIZES | settings
    )


def write_gpt2(directory: Path, **settings: Any) -> None:
    sizes = {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 128}
    save_random(
        directory,
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config,
        "gpt2",
        sizes | settings,
    )


def write_nemotron_h(directory: Path, **settings: Any) -> None:
    """``layers_block_type`` says which layers there are; by default the dense kind."""
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 160,
        "layers_block_type": ["linear_attention", "mlp", "full_attention", "linear_attention", "mlp"],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "n_groups": 2,
        "ssm_state_size": 16,
        "time_step_min": 1e-30,  # transformers cuts time steps off here; nobody else does
    }
    save_random(
        directory,
        transformers.NemotronHForCausalLM,
        transformers.NemotronHConfig,
        "nemotron-h",
        sizes | settings,
    )


EXPERTS = {
    "layers_block_type": ["linear_attention", "moe", "full_attention", "linear_attention", "moe"],
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 96,
    "moe_shared_expert_intermediate_size": 128,
    "routed_scaling_factor": 2.5,
}


def then(
    write: Callable[[Path], None], change: Callable[[dict[str, Any]], None] = as_transformers_4
) -> Callable[[Path], None]:
    """Write a checkpoint, then change its config.json."""

    def write_and_change(directory: Path) -> None:
        write(directory)
        rewrite_config(directory, change)

    return write_and_change


CASES: tuple[Case, ...] = (
    Case("llama", "grouped queries", write_llama),
    Case(
        "llama",
        "tied, biases",
        partial(write_llama, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    ),
    Case("llama", "llama3 scaling", partial(write_llama, rope_parameters=dict(LLAMA3))),
    Case(
        "llama", "llama3 scaling, transformers 4", then(partial(write_llama, rope_parameters=dict(LLAMA3)))
    ),
    Case(
        "llama",
        "linear scaling, heads of 24",
        partial(write_llama, head_dim=24, rope_parameters=dict(LINEAR)),
    ),
    Case("llama", "yarn", partial(write_llama, rope_parameters=dict(YARN))),
    Case(
        "llama",
        "yarn with its own strength",
        partial(write_llama, rope_parameters=YARN | {"attention_factor": 1.3}),
    ),
    Case("llama", "long-rope, beyond", partial(write_llama, rope_parameters=longrope(8))),
    Case("llama", "long-rope, within", partial(write_llama, rope_parameters=longrope(8, 256)), n_ctx=256),
    Case(
        "llama",
        "Yi",
        partial(write_llama, kind="yi", rope_parameters={"rope_type": "default", "rope_theta": 5e6}),
    ),
    Case("llama", "SmolLM2", partial(write_llama, kind="smollm", tie_word_embeddings=True)),
    Case("llama", "Mistral, heads of 32", write_mistral),
    Case("llama", "Mistral, window of the context", partial(write_mistral, sliding_window=128)),
    Case("llama", "SmolLM3", write_smollm3),
    Case(
        "llama", "SmolLM3, untied, transformers 4", then(partial(write_smollm3, tie_word_embeddings=False))
    ),
    Case("qwen", "Qwen2", write_qwen2),
    Case(
        "qwen",
        "Qwen2, tied, yarn",
        partial(write_qwen2, tie_word_embeddings=True, rope_parameters=dict(YARN)),
    ),
    Case("qwen", "Qwen2, transformers 4", then(write_qwen2)),
    Case("qwen", "Qwen3", write_qwen3),
    Case(
        "qwen",
        "Qwen3, tied, yarn, transformers 4",
        then(partial(write_qwen3, tie_word_embeddings=True, rope_parameters=dict(YARN))),
    ),
    Case("gemma", "Gemma 2, window of 16", write_gemma2),
    Case(
        "gemma",
        "Gemma 2, tight caps, transformers 4",
        then(partial(write_gemma2, attn_logit_softcapping=3.0, final_logit_softcapping=5.0)),
    ),
    Case("gemma", "Gemma 3, window of 16", write_gemma3),
    Case(
        "gemma",
        "Gemma 3, linear scaling, transformers 4",
        then(
            partial(
                write_gemma3,
                rope_parameters={
                    "full_attention": {**LINEAR, "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
            )
        ),
    ),
    Case(
        "gemma",
        "Gemma 3, untied, capped",
        partial(write_gemma3, tie_word_embeddings=False, final_logit_softcapping=8.0),
    ),
    Case("gemma", "Gemma 3 with vision", write_gemma3_vision),
    Case(
        "gemma",
        "Gemma 3 with vision, transformers 4",
        then(write_gemma3_vision),
    ),
    Case("phi3", "Phi-3", write_phi3),
    Case(
        "phi3",
        "Phi-4, tied, three quarters turn",
        partial(
            write_phi3,
            kind="phi-4",
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75},
        ),
    ),
    Case(
        "phi3",
        "long-rope, beyond",
        partial(write_phi3, rope_parameters=longrope(8), original_max_position_embeddings=32),
    ),
    Case(
        "phi3",
        "long-rope, within, transformers 4",
        then(partial(write_phi3, rope_parameters=longrope(8, 256), original_max_position_embeddings=256)),
        n_ctx=256,
    ),
    Case("phi3", "window of the context", partial(write_phi3, sliding_window=100)),
    Case("olmo2", "grouped queries", write_olmo2),
    Case("olmo2", "tied, transformers 4", then(partial(write_olmo2, tie_word_embeddings=True))),
    Case("gpt2", "tied", write_gpt2),
    Case(
        "gpt2",
        "untied, own inner size",
        partial(write_gpt2, tie_word_embeddings=False, n_inner=200),
    ),
    Case("nemotron_h", "Mamba, attention, MLP", write_nemotron_h),
    Case(
        "nemotron_h",
        "no bias of the convolution, biases of the MLP",
        partial(write_nemotron_h, use_conv_bias=False, mlp_bias=True),
    ),
    Case("nemotron_h", "experts", partial(write_nemotron_h, **EXPERTS)),
    Case(
        "nemotron_h",
        "experts in a latent space, groups",
        partial(write_nemotron_h, **EXPERTS, moe_latent_size=32, n_group=4, topk_group=2),
    ),
)
