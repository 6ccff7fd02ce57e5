"""Tiny models that read images, written with numpy alone as transformers saves them.

Qwen3-VL, Qwen3.5 and Gemma 3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.random_checkpoints.plain import (
    CONFIG,
    DTYPES,
    Tensors,
    llama_tensors,
    write_tokenizer,
    write_weights,
)
from tests.random_checkpoints.plans import stored

FIRST = 258
"""The id of the first image token; the others follow."""

QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
GEMMA_TOKENS = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")

QWEN_VISION: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "depth": 3,
    "hidden_size": 32,
    "hidden_act": "gelu_pytorch_tanh",
    "intermediate_size": 48,
    "num_heads": 2,
    "in_channels": 3,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 36,
    "deepstack_visual_indexes": [0, 1],
}
GEMMA_VISION: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "vision_use_head": False,
}
PROCESSOR: dict[str, Any] = {"do_rescale": True, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3]}
PROCESSOR["image_std"] = [0.5, 0.6, 0.7]
QWEN_PROCESSOR = PROCESSOR | {
    "image_processor_type": "Qwen2VLImageProcessor",
    "patch_size": 16,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 4096, "longest_edge": 65536},
}
GEMMA_PROCESSOR = PROCESSOR | {
    "image_processor_type": "Gemma3ImageProcessor",
    "size": {"height": 56, "width": 56},
    "image_seq_length": 4,
}


def write_qwen3vl(directory: Path, *, dtype: str = "F32", seed: int = 0, **vision: Any) -> Tensors:
    """Write a Qwen3-VL of two layers with a tower of three; ``vision``: settings of the tower."""
    text = CONFIG | {"model_type": "qwen3_vl_text", "head_dim": 16, "rms_norm_eps": 1e-6}
    text["rope_scaling"] = {"mrope_interleaved": True, "mrope_section": [3, 3, 2], "rope_type": "default"}
    tower = QWEN_VISION | vision
    config = _qwen_config("Qwen3VLForConditionalGeneration", "qwen3_vl", text, tower)
    tensors = _text(text, seed, ("q_norm", "k_norm")) | _qwen_tower(tower, seed)
    return _write(directory, config, QWEN_PROCESSOR, QWEN_TOKENS, tensors, dtype)


def _qwen_config(
    architecture: str, model_type: str, text: dict[str, Any], tower: dict[str, Any]
) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "text_config": text,
        "vision_config": tower,
        "vision_start_token_id": FIRST,
        "vision_end_token_id": FIRST + 1,
        "image_token_id": FIRST + 2,
        "video_token_id": FIRST + 3,
        "tie_word_embeddings": False,
    }


def write_qwen35(directory: Path, *, dtype: str = "F32", seed: int = 0, **vision: Any) -> Tensors:
    """Write a Qwen3.5 of four layers, three of them gated delta nets; ``vision``: settings of the tower."""
    planned = stored()["qwen35, Qwen3.6 and 3.8, dense, with vision"]
    rope = planned["settings"]["rope_parameters"] | {"partial_rotary_factor": 0.5}
    rope |= {"mrope_interleaved": True, "mrope_section": [3, 3, 2]}
    text = planned["settings"] | {"rope_parameters": rope, "eos_token_id": None}
    text.pop("vision_config")
    tower = QWEN_VISION | {"model_type": "qwen3_5_vision", "out_hidden_size": text["hidden_size"]} | vision
    tower.pop("deepstack_visual_indexes")
    config = _qwen_config("Qwen3_5ForConditionalGeneration", "qwen3_5", text, tower)
    made = _Random(seed)
    for name, shape in planned["shapes"].items():
        if "visual" not in name:
            mean = float(name.endswith("linear_attn.norm.weight"))  # the other norms add 1 themselves
            scale = 0.2 if len(shape) == 1 else shape[-1] ** -0.5
            made.draw(name, *shape, mean=mean, scale=scale)
    tensors = made.tensors | _qwen_tower(tower | {"deepstack_visual_indexes": []}, seed)
    return _write(directory, config, QWEN_PROCESSOR, QWEN_TOKENS, tensors, dtype)


def write_gemma3(directory: Path, *, dtype: str = "F32", seed: int = 0, **vision: Any) -> Tensors:
    """Write a Gemma 3 of two layers, the first with a sliding window; ``vision``: settings of the tower."""
    text = CONFIG | {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 32,
        "layer_types": ["sliding_attention", "full_attention"],
        "tie_word_embeddings": True,
    }
    tower = GEMMA_VISION | vision
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
        "vision_config": tower,
        "mm_tokens_per_image": 4,
        "boi_token_index": FIRST,
        "eoi_token_index": FIRST + 1,
        "image_token_index": FIRST + 2,
    }
    norms = ("q_norm", "k_norm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    tensors = _text(text, seed, norms, mean=0.0) | _gemma_tower(tower, seed)
    return _write(directory, config, GEMMA_PROCESSOR, GEMMA_TOKENS, tensors, dtype)


def _write(
    directory: Path,
    config: Mapping[str, Any],
    processor: Mapping[str, Any],
    tokens: tuple[str, ...],
    tensors: Tensors,
    dtype: str,
) -> Tensors:
    made = {name: array.astype(DTYPES[dtype]) for name, array in tensors.items()}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    write_tokenizer(directory, config["text_config"]["vocab_size"])
    _rename_tokens(directory / "tokenizer.json", tokens)
    write_weights(directory, made)
    return made


def _rename_tokens(path: Path, tokens: tuple[str, ...]) -> None:
    """Turn the first words of the vocabulary into special tokens."""
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    added = tokenizer["added_tokens"]
    renamed = {f"word{i}": token for i, token in enumerate(tokens)}
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {renamed.get(name, name): i for name, i in vocabulary.items()}
    added += [{**added[0], "id": FIRST + i, "content": token} for i, token in enumerate(tokens)]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def _text(config: Mapping[str, Any], seed: int, norms: tuple[str, ...], mean: float = 1.0) -> Tensors:
    """Return the text part: a Llama with more norms; ``mean``: of the norms' weights."""
    rng = np.random.default_rng(seed + 1)
    plain = llama_tensors(config, "F32", seed)
    for layer in range(config["num_hidden_layers"]):
        for name in norms:
            where, size = (
                ("self_attn.", 16) if name in ("q_norm", "k_norm") else ("", config["hidden_size"])
            )
            plain[f"model.layers.{layer}.{where}{name}.weight"] = np.ones(size, np.float32)
    for name, array in plain.items():
        if array.ndim == 1:
            plain[name] = (mean + 0.2 * rng.standard_normal(array.shape)).astype(np.float32)
    return {name.replace("model.", "model.language_model.", 1): array for name, array in plain.items()}


class _Random:
    """Random weights of unit gain, collected by name."""

    def __init__(self, seed: int) -> None:
        self._rng, self.tensors = np.random.default_rng(seed + 2), Tensors()

    def draw(self, name: str, *shape: int, mean: float = 0.0, scale: float = 0.2) -> None:
        values = mean + scale * self._rng.standard_normal(shape)
        self.tensors[name] = values.astype(np.float32)

    def linear(self, name: str, n_out: int, *inputs: int) -> None:
        self.draw(f"{name}.weight", n_out, *inputs, scale=float(np.prod(inputs)) ** -0.5)
        self.draw(f"{name}.bias", n_out)

    def norm(self, name: str, size: int) -> None:
        self.draw(f"{name}.weight", size, mean=1.0)
        self.draw(f"{name}.bias", size)


def _qwen_tower(config: Mapping[str, Any], seed: int) -> Tensors:
    made, width, inner = _Random(seed), config["hidden_size"], config["intermediate_size"]
    start, side = "model.visual.", config["patch_size"]
    made.linear(f"{start}patch_embed.proj", width, 3, 2, side, side)
    made.draw(f"{start}pos_embed.weight", config["num_position_embeddings"], width, scale=0.5)
    for i in range(config["depth"]):
        block = f"{start}blocks.{i}."
        made.norm(f"{block}norm1", width)
        made.norm(f"{block}norm2", width)
        made.linear(f"{block}attn.qkv", 3 * width, width)
        made.linear(f"{block}attn.proj", width, width)
        made.linear(f"{block}mlp.linear_fc1", inner, width)
        made.linear(f"{block}mlp.linear_fc2", width, inner)
    mergers = [f"deepstack_merger_list.{i}" for i in range(len(config["deepstack_visual_indexes"]))]
    for merger in ("merger", *mergers):
        made.norm(f"{start}{merger}.norm", width if merger == "merger" else 4 * width)
        made.linear(f"{start}{merger}.linear_fc1", 4 * width, 4 * width)
        made.linear(f"{start}{merger}.linear_fc2", config["out_hidden_size"], 4 * width)
    return made.tensors


def _gemma_tower(config: Mapping[str, Any], seed: int) -> Tensors:
    made, width, inner = _Random(seed), config["hidden_size"], config["intermediate_size"]
    start, side = "model.vision_tower.vision_model.", config["patch_size"]
    made.linear(f"{start}embeddings.patch_embedding", width, 3, side, side)
    n_patches = (config["image_size"] // side) ** 2
    made.draw(f"{start}embeddings.position_embedding.weight", n_patches, width, scale=0.5)
    for i in range(config["num_hidden_layers"]):
        block = f"{start}encoder.layers.{i}."
        made.norm(f"{block}layer_norm1", width)
        made.norm(f"{block}layer_norm2", width)
        for part in ("q", "k", "v", "out"):
            made.linear(f"{block}self_attn.{part}_proj", width, width)
        made.linear(f"{block}mlp.fc1", inner, width)
        made.linear(f"{block}mlp.fc2", width, inner)
    made.norm(f"{start}post_layernorm", width)
    projector = "model.multi_modal_projector.mm_"
    made.draw(f"{projector}input_projection_weight", width, CONFIG["hidden_size"])
    made.draw(f"{projector}soft_emb_norm.weight", width)
    return made.tensors
