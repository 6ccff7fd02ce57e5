"""Random GGUF models of a given shape: what no package ships, made in seconds."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray


def write_random_llama(
    path: Path,
    *,
    n_vocab: int,
    n_embd: int = 64,
    n_layer: int = 2,
    n_head: int = 4,
    n_head_kv: int = 2,
    n_ff: int = 128,
    n_ctx: int = 2048,
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    seed: int = 0,
) -> Path:
    """Write a model of the Llama architecture with tied embeddings and a byte-level vocabulary."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_head_count_kv(n_head_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(n_embd // n_head)
    _add_vocabulary(writer, n_vocab)

    def add(name: str, *shape: int) -> None:
        weights = rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
        data: NDArray[np.generic] = gguf.quants.quantize(weights, quantization)
        writer.add_tensor(name, data, raw_dtype=quantization)

    add("token_embd.weight", n_vocab, n_embd)
    writer.add_tensor("output_norm.weight", np.ones(n_embd, np.float32))
    n_kv = n_embd // n_head * n_head_kv
    for layer in range(n_layer):
        block = f"blk.{layer}."
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}{norm}.weight", np.ones(n_embd, np.float32))
        add(f"{block}attn_q.weight", n_embd, n_embd)
        add(f"{block}attn_k.weight", n_kv, n_embd)
        add(f"{block}attn_v.weight", n_kv, n_embd)
        add(f"{block}attn_output.weight", n_embd, n_embd)
        add(f"{block}ffn_gate.weight", n_ff, n_embd)
        add(f"{block}ffn_up.weight", n_ff, n_embd)
        add(f"{block}ffn_down.weight", n_embd, n_ff)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: gguf.GGUFWriter, n_vocab: int) -> None:
    """The 256 bytes as GPT-2 writes them, an end-of-text token, a merge, and words nothing encodes to."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    tokens = [*characters, "<|endoftext|>", "ab", *(f"word{i}" for i in range(n_vocab - 258))]
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.NORMAL] * (n_vocab - 257)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])  # llama.cpp refuses a list without any
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256)
    writer.add_add_bos_token(False)
