"""Settings of more published models, as config.json has them; what bears on no number is left out."""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]


def _sizes(
    hidden: int, inner: int, layers: int, heads: int, heads_kv: int, length: int, **others: Any
) -> Settings:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads_kv,
        "max_position_embeddings": length,
        "hidden_act": "silu",
        "attention_bias": False,
        **others,
    }


_VL_ROPE = {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"}
QWEN3_VL_4B = _sizes(2560, 9728, 36, 32, 8, 262144) | {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "rope_scaling": _VL_ROPE,
    "rope_theta": 5000000,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
QWEN3_VL_30B_A3B = _sizes(2048, 6144, 48, 32, 4, 262144) | {
    "architectures": ["Qwen3VLMoeForConditionalGeneration"],
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "rms_norm_eps": 1e-6,
    "rope_scaling": _VL_ROPE,
    "rope_theta": 5000000,
    "tie_word_embeddings": False,
    "vocab_size": 151936,
}
QWEN15_MOE_A2_7B = _sizes(2048, 5632, 24, 16, 16, 8192) | {
    "architectures": ["Qwen2MoeForCausalLM"],
    "decoder_sparse_step": 1,
    "max_window_layers": 21,
    "moe_intermediate_size": 1408,
    "norm_topk_prob": False,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "shared_expert_intermediate_size": 5632,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
OLMO_3_7B = _sizes(4096, 11008, 32, 32, 32, 65536) | {
    "architectures": ["Olmo3ForCausalLM"],
    "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 8,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {
        "attention_factor": 1.2079441541679836,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "yarn",
    },
    "rope_theta": 500000,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 100278,
}
OLMOE_1B_7B = _sizes(2048, 1024, 16, 16, 16, 4096) | {
    "architectures": ["OlmoeForCausalLM"],
    "clip_qkv": None,
    "norm_topk_prob": False,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 50304,
}
GEMMA_2B = _sizes(2048, 16384, 18, 8, 1, 8192) | {
    "architectures": ["GemmaForCausalLM"],
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": None,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "vocab_size": 256000,
}
SEED_OSS_36B = _sizes(5120, 27648, 64, 80, 8, 524288) | {
    "architectures": ["SeedOssForCausalLM"],
    "attention_bias": True,
    "attention_out_bias": False,
    "head_dim": 128,
    "mlp_bias": False,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {"rope_type": "default"},
    "rope_theta": 10000000.0,
    "tie_word_embeddings": False,
    "vocab_size": 155136,
}
APERTUS_8B = _sizes(4096, 21504, 32, 32, 8, 65536) | {
    "architectures": ["ApertusForCausalLM"],
    "hidden_act": "xielu",
    "mlp_bias": False,
    "post_norm": False,
    "qk_norm": True,
    "rms_norm_eps": 1e-5,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
        "type": "llama3",
    },
    "rope_theta": 12000000,
    "tie_word_embeddings": False,
    "vocab_size": 131072,
}
ERNIE_45_0_3B = _sizes(1024, 3072, 18, 16, 2, 131072) | {
    "architectures": ["Ernie4_5ForCausalLM"],
    "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 500000,
    "tie_word_embeddings": True,
    "use_bias": False,
    "vocab_size": 103424,
}
ERNIE_45_21B_A3B = _sizes(2560, 12288, 28, 20, 4, 131072) | {
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "moe_intermediate_size": 1536,
    "moe_k": 6,
    "moe_layer_end_index": 27,
    "moe_layer_interval": 1,
    "moe_layer_start_index": 1,
    "moe_num_experts": 64,
    "moe_num_shared_experts": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "use_bias": False,
    "vocab_size": 103424,
}
_ALPHA = {"alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0, "type": "dynamic"}
HUNYUAN_7B = _sizes(4096, 14336, 32, 32, 8, 262144) | {
    "architectures": ["HunYuanDenseV1ForCausalLM"],
    "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "rope_scaling": _ALPHA,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "use_qk_norm": True,
    "vocab_size": 128167,
}
HUNYUAN_A13B = _sizes(4096, 3072, 32, 32, 8, 32768) | {
    "architectures": ["HunYuanMoEV1ForCausalLM"],
    "head_dim": 128,
    "moe_intermediate_size": [3072] * 32,
    "moe_topk": [8] * 32,
    "num_experts": 64,
    "num_shared_expert": [1] * 32,
    "rms_norm_eps": 1e-5,
    "rope_scaling": _ALPHA,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "use_qk_norm": True,
    "vocab_size": 128167,
}
_EXAONE_ROPE = {
    "factor": 16.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
EXAONE_4_1_2B = _sizes(2048, 4096, 30, 32, 8, 65536) | {
    "architectures": ["Exaone4ForCausalLM"],
    "head_dim": 64,
    "layer_types": ["full_attention"] * 30,
    "rms_norm_eps": 1e-5,
    "rope_scaling": _EXAONE_ROPE,
    "rope_theta": 1000000,
    "sliding_window": None,
    "sliding_window_pattern": None,
    "tie_word_embeddings": True,
    "vocab_size": 102400,
}
EXAONE_4_32B = _sizes(5120, 27392, 64, 40, 8, 131072) | {
    "architectures": ["Exaone4ForCausalLM"],
    "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "rope_scaling": _EXAONE_ROPE,
    "rope_theta": 1000000,
    "sliding_window": 4096,
    "sliding_window_pattern": "LLLG",
    "tie_word_embeddings": False,
    "vocab_size": 102400,
}
GLM_45_AIR = _sizes(4096, 10944, 46, 96, 8, 131072) | {
    "architectures": ["Glm4MoeForCausalLM"],
    "attention_bias": True,
    "first_k_dense_replace": 1,
    "head_dim": 128,
    "moe_intermediate_size": 1408,
    "n_group": 1,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_experts_per_tok": 8,
    "num_nextn_predict_layers": 1,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "routed_scaling_factor": 1.0,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "use_qk_norm": False,
    "vocab_size": 151552,
}
GLM_46 = GLM_45_AIR | {
    "first_k_dense_replace": 3,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "max_position_embeddings": 202752,
    "moe_intermediate_size": 1536,
    "n_routed_experts": 160,
    "num_hidden_layers": 92,
    "routed_scaling_factor": 2.5,
    "use_qk_norm": True,
}
MINIMAX_M2 = _sizes(3072, 1536, 62, 48, 8, 196608) | {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "head_dim": 128,
    "num_experts_per_tok": 8,
    "num_local_experts": 256,
    "qk_norm_type": "per_layer",
    "rms_norm_eps": 1e-6,
    "rope_theta": 5000000,
    "rotary_dim": 64,
    "scoring_func": "sigmoid",
    "shared_intermediate_size": 0,
    "tie_word_embeddings": False,
    "use_qk_norm": True,
    "vocab_size": 200064,
}
STARCODER2_7B = _sizes(4608, 18432, 32, 36, 4, 16384) | {
    "architectures": ["Starcoder2ForCausalLM"],
    "hidden_act": "gelu_pytorch_tanh",
    "norm_epsilon": 1e-5,
    "rope_theta": 1000000,
    "sliding_window": 4096,
    "use_bias": True,
    "vocab_size": 49152,
}
GRANITE_33_8B = _sizes(4096, 12800, 40, 32, 8, 131072) | {
    "architectures": ["GraniteForCausalLM"],
    "attention_multiplier": 0.0078125,
    "embedding_multiplier": 12.0,
    "logits_scaling": 16.0,
    "mlp_bias": False,
    "residual_multiplier": 0.22,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 10000000.0,
    "tie_word_embeddings": True,
    "vocab_size": 49159,
}
GRANITE_3_1B_A400M = _sizes(1024, 512, 24, 16, 8, 131072) | {
    "architectures": ["GraniteMoeForCausalLM"],
    "attention_multiplier": 0.015625,
    "embedding_multiplier": 12.0,
    "logits_scaling": 6.0,
    "num_experts_per_tok": 8,
    "num_local_experts": 32,
    "residual_multiplier": 0.22,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 49155,
}
_LFM2_LAYERS = [
    "full_attention" if i in (2, 5, 8, 10, 12, 14) else "conv" for i in range(16)
]  # of LFM2-1.2B
LFM2_1_2B = _sizes(2048, 12288, 16, 32, 8, 128000) | {
    "architectures": ["Lfm2ForCausalLM"],
    "block_auto_adjust_ff_dim": True,
    "block_ff_dim": 12288,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 256,
    "conv_L_cache": 3,
    "conv_bias": False,
    "layer_types": _LFM2_LAYERS,
    "norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "vocab_size": 65536,
}
LFM2_8B_A1B = _sizes(2048, 7168, 24, 32, 8, 128000) | {
    "architectures": ["Lfm2MoeForCausalLM"],
    "conv_L_cache": 3,
    "conv_bias": False,
    "layer_types": ["full_attention" if i in (2, 6, 10, 14, 18, 21) else "conv" for i in range(24)],
    "moe_intermediate_size": 1792,
    "norm_eps": 1e-5,
    "norm_topk_prob": True,
    "num_dense_layers": 2,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "rope_theta": 1000000.0,
    "routed_scaling_factor": 1.0,
    "use_expert_bias": True,
    "vocab_size": 65536,
}
MINISTRAL_3_8B = _sizes(4096, 14336, 34, 32, 8, 262144) | {  # the text_config
    "architectures": ["Mistral3ForConditionalGeneration"],
    "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 16.0,
        "llama_4_scaling_beta": 0.1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 16384,
        "rope_theta": 1000000.0,
        "rope_type": "yarn",
        "type": "yarn",
    },
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 131072,
}
QWEN3_NEXT_80B_A3B = _sizes(2048, 5120, 48, 16, 2, 262144) | {
    "architectures": ["Qwen3NextForCausalLM"],
    "decoder_sparse_step": 1,
    "full_attention_interval": 4,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "mlp_only_layers": [],
    "moe_intermediate_size": 512,
    "norm_topk_prob": True,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "partial_rotary_factor": 0.25,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 10000000,
    "shared_expert_intermediate_size": 512,
    "tie_word_embeddings": False,
    "vocab_size": 151936,
}
_LATENT = {
    "first_k_dense_replace": 3,
    "index_head_dim": 128,
    "index_topk": 2048,
    "kv_lora_rank": 512,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_experts_per_tok": 8,
    "num_nextn_predict_layers": 1,
    "qk_rope_head_dim": 64,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_method": "noaux_tc",
}
DEEPSEEK_V32 = (
    _sizes(7168, 18432, 61, 128, 128, 163840)
    | _LATENT
    | {
        "architectures": ["DeepseekV32ForCausalLM"],
        "index_n_heads": 64,
        "n_group": 8,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "rms_norm_eps": 1e-6,
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
        "topk_group": 4,
        "v_head_dim": 128,
        "vocab_size": 129280,
    }
)
GLM_5 = (
    _sizes(6144, 12288, 78, 64, 64, 202752)
    | _LATENT
    | {
        "architectures": ["GlmMoeDsaForCausalLM"],
        "index_n_heads": 32,
        "n_group": 1,
        "q_lora_rank": 2048,
        "qk_nope_head_dim": 192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
        "topk_group": 1,
        "v_head_dim": 256,
        "vocab_size": 154880,
    }
)
