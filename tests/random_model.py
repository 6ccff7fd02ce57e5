"""Random GGUF models of real architectures: every kind of memory, any size, made in a moment.

llama   plain attention
gemma3  sliding-window attention in five of six layers
mamba   recurrent
jamba   hybrid: recurrent and attention layers in turn
qwen3moe  plain attention and a mixture of experts, of which some serve each token
qwen3vl  plain attention that turns by time, row and column, for images; see random_tower.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import gguf
import numpy as np
from numpy.typing import NDArray

Architecture = Literal["llama", "gemma3", "mamba", "jamba", "qwen3moe", "qwen3vl"]
Quantization = gguf.GGMLQuantizationType

ARCHITECTURES: tuple[Architecture, ...] = ("llama", "gemma3", "mamba", "jamba")
"""One for each kind of memory."""

SLIDING_WINDOW = 32
N_DEEPSTACK = 1  # layers to which images add
SECTIONS = [3, 3, 2, 0]  # numbers of a head that turn by time, row and column
STATE, CONVOLUTION, TIME_RANK = 16, 4, 8  # of the recurrent layers


@dataclass(frozen=True)
class Shape:
    n_vocab: int = 400
    n_embd: int = 64
    n_layer: int = 6
    n_head: int = 4
    n_head_kv: int = 2
    n_ff: int = 128
    n_ctx: int = 2048
    n_experts: int = 4
    n_used: int = 2


def write_random_model(
    path: Path,
    architecture: Architecture = "llama",
    shape: Shape | None = None,
    *,
    quantization: Quantization = Quantization.F32,
    seed: int = 0,
    tied: bool = True,
    added: Mapping[str, NDArray[np.float32]] | None = None,
    said: Mapping[str, str] | None = None,
    named: Mapping[str, int] = MappingProxyType({"bos": 256, "eos": 256}),
    adds_bos: bool = False,
    special: Sequence[str] = (),
) -> Path:
    """Write a model with a byte-level vocabulary; its embeddings are its output matrix where ``tied``.

    ``added`` holds what is added to the random weights, under their names: a merged adapter's part;
    ``said`` is more of its metadata. ``named`` has the ids of the special tokens that the file names;
    ``special`` are the last tokens of the vocabulary.
    """
    shape = shape or Shape()
    writer = gguf.GGUFWriter(path, architecture)
    _add_hyperparameters(writer, architecture, shape)
    add_vocabulary(writer, shape.n_vocab, special)
    for name, token_id in named.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token_id)
    writer.add_add_bos_token(adds_bos)
    for key, value in (said or {}).items():
        writer.add_string(key, value)
    tensors = _Tensors(writer, quantization, np.random.default_rng(seed), added or {})
    tensors.matrix("token_embd", shape.n_vocab, shape.n_embd)
    tensors.ones("output_norm", shape.n_embd)
    for layer in range(shape.n_layer):
        _add_layer(tensors, architecture, shape, layer)
    if not tied:
        tensors.matrix("output", shape.n_vocab, shape.n_embd)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class _Tensors:
    def __init__(
        self,
        writer: gguf.GGUFWriter,
        kind: Quantization,
        rng: np.random.Generator,
        added: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self._writer, self._kind, self._rng, self._added = writer, kind, rng, added

    def matrix(self, name: str, rows: int, columns: int) -> None:
        weights = self._rng.standard_normal((rows, columns), np.float32) * np.float32(columns**-0.5)
        weights += self._added.get(f"{name}.weight", np.float32(0))
        data: NDArray[np.generic] = gguf.quants.quantize(weights, self._kind)
        self._writer.add_tensor(f"{name}.weight", data, raw_dtype=self._kind)

    def experts(self, name: str, n: int, rows: int, columns: int) -> None:
        weights = self.random(n, rows, columns) * np.float32(columns**-0.5)
        data: NDArray[np.generic] = gguf.quants.quantize(weights, self._kind)
        self._writer.add_tensor(f"{name}.weight", data, raw_dtype=self._kind)

    def ones(self, name: str, n: int) -> None:
        self._writer.add_tensor(f"{name}.weight", np.ones(n, np.float32))

    def float32(self, name: str, values: NDArray[np.float32]) -> None:
        values = values + self._added.get(name, np.float32(0))
        self._writer.add_tensor(name, np.ascontiguousarray(values, np.float32))

    def random(self, *shape: int) -> NDArray[np.float32]:
        return self._rng.standard_normal(shape, np.float32)


def _is_recurrent(architecture: Architecture, layer: int) -> bool:
    return architecture == "mamba" or (architecture == "jamba" and layer % 2 == 0)


def _add_hyperparameters(writer: gguf.GGUFWriter, architecture: Architecture, shape: Shape) -> None:
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(0 if architecture == "mamba" else shape.n_ff)
    writer.add_head_count(0 if architecture == "mamba" else shape.n_head)
    writer.add_layer_norm_rms_eps(1e-5)
    kv_heads = [
        0 if _is_recurrent(architecture, layer) else shape.n_head_kv for layer in range(shape.n_layer)
    ]
    if architecture != "mamba":
        writer.add_head_count_kv(kv_heads if architecture == "jamba" else shape.n_head_kv)
        writer.add_rope_dimension_count(shape.n_embd // shape.n_head)
    if architecture in ("gemma3", "qwen3moe", "qwen3vl"):
        writer.add_key_length(shape.n_embd // shape.n_head)
        writer.add_value_length(shape.n_embd // shape.n_head)
    if architecture == "gemma3":
        writer.add_sliding_window(SLIDING_WINDOW)
    if architecture == "qwen3vl":
        writer.add_rope_dimension_sections(SECTIONS)
        writer.add_uint32("qwen3vl.n_deepstack_layers", N_DEEPSTACK)
    if architecture == "qwen3moe":
        writer.add_expert_count(shape.n_experts)
        writer.add_expert_used_count(shape.n_used)
        writer.add_expert_feed_forward_length(shape.n_ff)
    if architecture in ("mamba", "jamba"):
        writer.add_ssm_conv_kernel(CONVOLUTION)
        writer.add_ssm_inner_size(2 * shape.n_embd)
        writer.add_ssm_state_size(STATE)
        writer.add_ssm_time_step_rank(TIME_RANK)


def _add_layer(tensors: _Tensors, architecture: Architecture, shape: Shape, layer: int) -> None:
    block = f"blk.{layer}"
    tensors.ones(f"{block}.attn_norm", shape.n_embd)
    if _is_recurrent(architecture, layer):
        _add_recurrence(tensors, block, shape, normed=architecture == "jamba")
    else:
        _add_attention(tensors, block, shape)
    if architecture in ("gemma3", "qwen3moe", "qwen3vl"):
        for norm in ("attn_q_norm", "attn_k_norm"):
            tensors.ones(f"{block}.{norm}", shape.n_embd // shape.n_head)
    if architecture == "gemma3":
        for norm in ("post_attention_norm", "post_ffw_norm"):
            tensors.ones(f"{block}.{norm}", shape.n_embd)
    if architecture != "mamba":
        tensors.ones(f"{block}.ffn_norm", shape.n_embd)
    if architecture == "qwen3moe":
        n = shape.n_experts
        router = tensors.random(n, shape.n_embd) * np.float32(shape.n_embd**-0.5)
        tensors.float32(f"{block}.ffn_gate_inp.weight", router)
        tensors.experts(f"{block}.ffn_gate_exps", n, shape.n_ff, shape.n_embd)
        tensors.experts(f"{block}.ffn_up_exps", n, shape.n_ff, shape.n_embd)
        tensors.experts(f"{block}.ffn_down_exps", n, shape.n_embd, shape.n_ff)
    elif architecture != "mamba":
        tensors.matrix(f"{block}.ffn_gate", shape.n_ff, shape.n_embd)
        tensors.matrix(f"{block}.ffn_up", shape.n_ff, shape.n_embd)
        tensors.matrix(f"{block}.ffn_down", shape.n_embd, shape.n_ff)


def _add_attention(tensors: _Tensors, block: str, shape: Shape) -> None:
    n_kv = shape.n_embd // shape.n_head * shape.n_head_kv
    tensors.matrix(f"{block}.attn_q", shape.n_embd, shape.n_embd)
    tensors.matrix(f"{block}.attn_k", n_kv, shape.n_embd)
    tensors.matrix(f"{block}.attn_v", n_kv, shape.n_embd)
    tensors.matrix(f"{block}.attn_output", shape.n_embd, shape.n_embd)


def _add_recurrence(tensors: _Tensors, block: str, shape: Shape, *, normed: bool) -> None:
    inner = 2 * shape.n_embd
    tensors.matrix(f"{block}.ssm_in", 2 * inner, shape.n_embd)
    tensors.float32(f"{block}.ssm_conv1d.weight", tensors.random(inner, CONVOLUTION))
    tensors.float32(f"{block}.ssm_conv1d.bias", tensors.random(inner))
    tensors.matrix(f"{block}.ssm_x", TIME_RANK + 2 * STATE, inner)
    tensors.float32(f"{block}.ssm_dt.weight", tensors.random(inner, TIME_RANK))
    tensors.float32(f"{block}.ssm_dt.bias", tensors.random(inner))
    tensors.float32(f"{block}.ssm_a", -np.exp(tensors.random(inner, STATE)))
    tensors.float32(f"{block}.ssm_d", tensors.random(inner))
    tensors.matrix(f"{block}.ssm_out", shape.n_embd, inner)
    if normed:
        tensors.ones(f"{block}.ssm_dt_norm", TIME_RANK)
        tensors.ones(f"{block}.ssm_b_norm", STATE)
        tensors.ones(f"{block}.ssm_c_norm", STATE)


def add_vocabulary(writer: gguf.GGUFWriter, n_vocab: int, special: Sequence[str] = ()) -> None:
    """The 256 bytes as GPT-2 writes them, an end-of-text token, a merge, and words nothing encodes to."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    tokens = [*characters, "<|endoftext|>", "ab", *(f"word{i}" for i in range(n_vocab - 258))]
    kinds = [gguf.TokenType.NORMAL] * n_vocab
    kinds[256] = gguf.TokenType.CONTROL
    if special:
        tokens[-len(special) :] = special
        kinds[-len(special) :] = [gguf.TokenType.CONTROL] * len(special)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])  # llama.cpp refuses a list without any
