"""What the tiny Llama's GGUF file must hold, worked out apart from the converter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OTHERS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
Arrays = dict[str, NDArray[Any]]


def expected_arrays(tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Arrays:
    """Return llama.cpp's names and the numbers, in their own format."""
    arrays = {}
    for name, array in tensors.items():
        if name in OTHERS:
            arrays[OTHERS[name]] = array
            continue
        _, _, layer, part = name.removesuffix(".weight").split(".", 3)
        if part in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = config["num_attention_heads" if "q_proj" in part else "num_key_value_heads"]
            array = interleaved(array, heads)
        arrays[f"blk.{layer}.{NAMES[part]}.weight"] = array
    return arrays


def interleaved(array: NDArray[Any], n_heads: int) -> NDArray[Any]:
    """Return rows so that the two halves of each head alternate."""
    half = array.shape[0] // n_heads // 2
    rows = []
    for head in range(n_heads):
        for i in range(half):
            rows += [head * 2 * half + i, head * 2 * half + half + i]
    return array[rows]


def read_gguf(*paths: Path) -> tuple[dict[str, Any], dict[str, gguf.ReaderTensor]]:
    """Return the metadata of the first file and the tensors of all."""
    readers = [gguf.GGUFReader(path) for path in paths]
    fields = {name: field.contents() for name, field in readers[0].fields.items()}
    return fields, {tensor.name: tensor for reader in readers for tensor in reader.tensors}


def numbers(tensor: gguf.ReaderTensor) -> NDArray[np.float32]:
    """Return a tensor's numbers, rows first."""
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
