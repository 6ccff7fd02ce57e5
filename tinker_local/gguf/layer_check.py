"""Whether the tensors of attention are of the sizes that the settings make the computation expect.

llama.cpp checks shapes by formulas of its own for each architecture, and computes by others, so that a file
can agree with the first and end the process by the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from convert.gguf.tensor_info import TensorInfo
from tinker_local.gguf.architectures import EQUAL_HEADS

_ATTENTION = (EQUAL_HEADS | {"gemma", "gemma2", "gemma3", "gpt-oss"}) - {
    "cogvlm", "deepseek4", "dflash", "eagle3", "maple", "minimax-01", "minimax-m3", "muse-glimmer",
    "pockettts", "qwen3next", "qwen35", "qwen35moe", "qwen4exp", "t5", "talkie",
}  # fmt: skip
"""Architectures whose layers have queries, keys and values as below, and nothing else of those names."""
_DELTA_NETS = ("qwen3next", "qwen35", "qwen35moe")


@dataclass(frozen=True, slots=True)
class Heads:
    """The attention heads of each layer, of queries and of keys, and the numbers in a head."""

    of_queries: Sequence[int]
    of_keys: Sequence[int]
    n_key: int
    n_value: int


def wrong_layers(
    architecture: str | None, tensors: Mapping[str, TensorInfo], heads: Heads
) -> Iterator[str]:
    """Yield what is wrong with the layers, as message fragments: "<file> cannot be used: <problem>"."""
    for layer, (n, n_kv) in enumerate(zip(heads.of_queries, heads.of_keys, strict=False)):
        if architecture in _ATTENTION:
            queries, keys, values = n * heads.n_key, n_kv * heads.n_key, n_kv * heads.n_value
            expected = {
                "attn_q": queries,
                "attn_k": keys,
                "attn_v": values,
                "attn_qkv": queries + keys + values,
            }
            yield from _wrong_rows(layer, tensors, expected)
            if n_kv:
                yield from _missing(layer, tensors)
        if architecture in _DELTA_NETS:
            yield from _incomplete(layer, tensors)


def _wrong_rows(
    layer: int, tensors: Mapping[str, TensorInfo], expected: Mapping[str, int]
) -> Iterator[str]:
    for name, rows in expected.items():
        tensor = tensors.get(f"blk.{layer}.{name}.weight")
        if tensor is not None and tensor.ne[1] != rows:
            yield (
                f"the tensor blk.{layer}.{name}.weight has {tensor.ne[1]} rows; the heads and their "
                f"lengths make {rows}"
            )


def _missing(layer: int, tensors: Mapping[str, TensorInfo]) -> Iterator[str]:
    """Queries, keys and values are in one tensor or in three; to some loaders they are optional."""
    parts = [name for name in ("attn_q", "attn_k", "attn_v") if f"blk.{layer}.{name}.weight" not in tensors]
    if parts and f"blk.{layer}.attn_qkv.weight" not in tensors:
        yield f"the tensor blk.{layer}.{parts[0]}.weight is missing, and so is attn_qkv.weight"


def _incomplete(layer: int, tensors: Mapping[str, TensorInfo]) -> Iterator[str]:
    """A recurrent layer has its inputs in one tensor or in two, both optional to the loader."""
    there = {
        name for name in ("ssm_in", "attn_qkv", "attn_gate") if f"blk.{layer}.{name}.weight" in tensors
    }
    is_recurrent = f"blk.{layer}.ssm_out.weight" in tensors
    if is_recurrent and "ssm_in" not in there and len(there) < 2:
        yield f"the tensor blk.{layer}.attn_qkv.weight or attn_gate.weight is missing"
