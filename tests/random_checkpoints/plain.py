"""A tiny Llama as transformers saves it, written with numpy alone."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "I64": np.int64,
    "I32": np.int32,
    "I8": np.int8,
    "U8": np.uint8,
}
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 300,
}


def llama_tensors(config: Mapping[str, Any], dtype: str = "BF16", seed: int = 0) -> Tensors:
    """Return random weights: matrices of about unit gain, norms around 1."""
    rng = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    n_kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]

    def matrix(rows: int, columns: int) -> NDArray[Any]:
        values = rng.standard_normal((rows, columns), np.float32) * np.float32(columns**-0.5)
        return values.astype(DTYPES[dtype])

    def norm() -> NDArray[Any]:
        return (1 + 0.2 * rng.standard_normal(hidden, np.float32)).astype(DTYPES[dtype])

    tensors = {"model.embed_tokens.weight": matrix(config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        tensors |= {
            f"{block}input_layernorm.weight": norm(),
            f"{block}self_attn.q_proj.weight": matrix(hidden, hidden),
            f"{block}self_attn.k_proj.weight": matrix(n_kv, hidden),
            f"{block}self_attn.v_proj.weight": matrix(n_kv, hidden),
            f"{block}self_attn.o_proj.weight": matrix(hidden, hidden),
            f"{block}post_attention_layernorm.weight": norm(),
            f"{block}mlp.gate_proj.weight": matrix(inner, hidden),
            f"{block}mlp.up_proj.weight": matrix(inner, hidden),
            f"{block}mlp.down_proj.weight": matrix(hidden, inner),
        }
    tensors["model.norm.weight"] = norm()
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(config["vocab_size"], hidden)
    return tensors


def write_llama(
    directory: Path, *, dtype: str = "BF16", seed: int = 0, n_shards: int = 1, **settings: Any
) -> Tensors:
    """Write a whole model directory and return its tensors; ``settings`` go into config.json."""
    config = CONFIG | {"torch_dtype": dtype.lower()} | settings
    tensors = llama_tensors(config, dtype, seed)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_tokenizer(directory, config["vocab_size"])
    write_weights(directory, tensors, n_shards)
    return tensors


def write_weights(directory: Path, tensors: Tensors, n_shards: int = 1) -> None:
    """Write one file, or shards and their index."""
    if n_shards == 1:
        write_safetensors(directory / "model.safetensors", tensors)
        return
    names = list(tensors)
    places = {}
    for shard in range(n_shards):
        file = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::n_shards]}
        write_safetensors(directory / file, part)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file."""
    header, data = {}, bytearray()
    for name, array in tensors.items():
        dtype = next(key for key, value in DTYPES.items() if np.dtype(value) == array.dtype)
        start = len(data)
        data += array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, len(data)]}
    write_raw(path, json.dumps({"__metadata__": {"format": "pt"}, **header}).encode(), bytes(data))


def write_zeros(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write bfloat16 zeros: a hole, where the file system knows them."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    write_raw(path, text, b"")
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + end)


def write_raw(path: Path, header: bytes, data: bytes, length: int | None = None) -> None:
    """Write a header and data as they are; ``length``: what the file says of its header."""
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)


def write_tokenizer(directory: Path, n_tokens: int) -> None:
    """Write a byte-level tokenizer: bytes, an end-of-text token, a merge, words nothing encodes to."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    end = "<|endoftext|>"
    tokens = [*characters, end, "ab", *(f"word{i}" for i in range(n_tokens - 258))]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 256, "content": end, **special}],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [["a", "b"]],
        },
    }
    settings = {"tokenizer_class": "GPT2Tokenizer", "bos_token": end, "eos_token": end}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def write_qwen3moe(
    directory: Path, *, n_experts: int = 3, fused: bool = False, dtype: str = "F32", **settings: Any
) -> Tensors:
    """Write a tiny Qwen3 with experts and return its tensors; ``fused``: as transformers 5 has experts."""
    config = CONFIG | {"architectures": ["Qwen3MoeForCausalLM"], "num_hidden_layers": 1, "head_dim": 16}
    config |= {"num_experts": n_experts, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    config |= {"norm_topk_prob": True, "model_type": "qwen3_moe"} | settings
    tensors = {k: v for k, v in llama_tensors(config, dtype).items() if ".mlp." not in k}
    rng = np.random.default_rng(5)
    width, inner = config["hidden_size"], config["moe_intermediate_size"]

    def stack(rows: int, columns: int) -> NDArray[Any]:
        return (rng.standard_normal((n_experts, rows, columns)) * columns**-0.5).astype(DTYPES[dtype])

    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        gate, up, down = stack(inner, width), stack(inner, width), stack(width, inner)
        tensors |= {f"{block}self_attn.{x}_norm.weight": np.ones(16, DTYPES[dtype]) for x in "qk"}
        tensors[f"{block}mlp.gate.weight"] = stack(1, width)[:, 0]
        if fused:
            tensors[f"{block}mlp.experts.gate_up_proj"] = np.concatenate([gate, up], axis=1)
            tensors[f"{block}mlp.experts.down_proj"] = down
            continue
        for name, of_all in (("gate_proj", gate), ("up_proj", up), ("down_proj", down)):
            tensors |= {f"{block}mlp.experts.{i}.{name}.weight": one for i, one in enumerate(of_all)}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_tokenizer(directory, config["vocab_size"])
    write_weights(directory, tensors)
    return tensors
