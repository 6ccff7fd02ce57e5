"""Architectures with rules of their own about settings: assertions in llama.cpp's ``src/models/*.cpp``."""

from __future__ import annotations

NOT_LANGUAGE_MODELS = frozenset({"clip", "wavtokenizer-dec"})
"""llama.cpp ends the process on the first, and opens the second in its own way."""

EQUAL_HEADS = frozenset(
    """
    afmoe apertus arcee arctic baichuan bailingmoe2 bert bitnet bloom chameleon chatglm codeshell cogvlm
    cohere2 cohere2moe command-r dbrx deci deepseek deepseek4 dflash dots1 dream eagle3 ernie4_5
    ernie4_5-moe eurobert exaone exaone-moe exaone4 falcon glm4 glm4moe gpt2 gptneox granite granite_swa
    granitehybrid graniteswitch grok grovemoe hunyuan-moe hunyuan_vl hy_v3 internlm2 jais jais2 laguna
    llada llada-moe llama llama4 maincoder maple mellum minimax-01 minimax-m2 minimax-m3 mistral3
    modern-bert mpt muse-glimmer nanbeige nemotron nemotron_h nemotron_h_moe neo-bert olmo olmo2 olmoe
    openelm orion paddleocr pangu-embedded phi2 phi3 plamo pockettts qwen qwen2 qwen2moe qwen2vl qwen3
    qwen35 qwen35moe qwen3moe qwen3next qwen3vl qwen3vlmoe qwen4exp refact rnd1 seed_oss smallthinker
    smollm3 spark2_5 stablelm starcoder starcoder2 t5 talkie xverse
    """.split()  # noqa: SIM905
)
"""Architectures whose keys and values must have the same length."""

WHOLE_ROTATION = frozenset(
    """
    apertus arcee arctic baichuan chameleon codeshell cogvlm cohere2moe dbrx deci deepseek dots1 dream
    ernie4_5 ernie4_5-moe exaone exaone-moe exaone4 falcon granite granite_swa graniteswitch grok
    grovemoe hunyuan-moe hunyuan_vl hy_v3 internlm2 jais2 llada llada-moe llama llama4 maincoder mellum
    mistral3 olmo olmo2 olmoe orion paddleocr pangu-embedded plamo pockettts qwen2 qwen2moe qwen2vl
    qwen3 qwen3moe qwen3vl qwen3vlmoe rnd1 seed_oss smallthinker smollm3 starcoder2 talkie xverse
    """.split()  # noqa: SIM905
)
"""Architectures that rotate all numbers of a head."""

UNROTATED = frozenset(
    """
    arwkv7 bloom clip glm5-next gpt2 gptj granitehybrid jais jamba jina-bert-v2 kimi-k3 kimi-linear mamba
    mamba2 mpt nemotron_h nemotron_h_moe refact rwkv6 rwkv6qwen2 rwkv7 t5 t5encoder wavtokenizer-dec
    """.split()  # noqa: SIM905
)
"""Architectures without rotary embeddings, or with optional ones."""

WITH_STATES = frozenset(
    """
    arwkv7 bailingmoe3 deepseek4 falcon-h1 glm5-next granitehybrid jamba kimi-k3 kimi-linear lfm2 lfm2moe
    mamba mamba2 minimax-01 nemotron_h nemotron_h_moe plamo2 qwen35 qwen35moe qwen3next qwen4exp rwkv6
    rwkv6qwen2 rwkv7
    """.split()  # noqa: SIM905
)
"""Recurrent and hybrid architectures: ``llm_arch_is_recurrent`` and ``llm_arch_is_hybrid``."""

BY_HEADS = frozenset({"glm5-next", "granitehybrid", "kimi-k3", "kimi-linear", "lfm2", "lfm2moe"})
"""Hybrid architectures whose recurrent layers are those without heads of keys."""
