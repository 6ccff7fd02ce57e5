"""Ways in which a GGUF file can be wrong."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from tests.fuzz.gguf_parts import ARRAY, STRING, Key, Parts, take_apart

NUMBERS: tuple[int | float, ...] = (
    0, 1, 2, 3, 5, 7, 8, 16, 31, 63, 64, 65, 127, 255, 256, 512, 513, 1024, 1025, 65535, 65536, 10**6,
    2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63, 2**64 - 1, -1, -2, -(2**31),
    0.5, -0.5, 1e-9, 1e30, -1e30, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (
    b"", b"\0", b"x", b"llama", b"gemma3", b"mamba", b"mamba2", b"jamba", b"qwen3moe", b"qwen2",
    b"gpt2", b"bert", b"clip", b"t5", b"phi3", b"gemma2", b"deepseek2", b"rwkv6", b"rwkv", b"plamo2",
    b"none", b"no_vocab", b"yarn", b"longrope", b"adapter", b"model", b"lora", b"gpt-4o", b"tekken",
    b"llama-bpe", b"deepseek-v3", b"gemma4", b"hybriddna", b"whitespace", b"kimi-k2", b"\xff\xfe",
    "é漢\U0001f600".encode(), b"a" * 300, b"%s%n%d", b"<0x41>",
)  # fmt: skip
NAMES = (
    "attention.sliding_window", "attention.sliding_window_pattern", "attention.causal", "pooling_type",
    "expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count",
    "expert_gating_func", "nextn_predict_layers", "rope.scaling.type", "rope.scaling.factor",
    "rope.freq_base", "attention.key_length", "attention.value_length", "attention.key_length_swa",
    "rope.dimension_count", "rope.dimension_count_swa", "rope.dimension_sections", "vocab_size",
    "embedding_length_out", "attention.max_alibi_bias", "logit_scale", "final_logit_softcapping",
    "attn_logit_softcapping", "ssm.group_count", "ssm.dt_b_c_rms", "attention.scale",
    "expert_feed_forward_length", "expert_shared_count", "leading_dense_block_count",
    "attention.layer_norm_rms_epsilon", "rope.scaling.original_context_length",
)  # fmt: skip
GENERAL = (
    "general.alignment", "general.name", "general.file_type", "general.quantization_version",
    "split.count", "split.no", "split.tensors.count", "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.precompiled_charsmap", "tokenizer.chat_template",
    "tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.merges",
    "tokenizer.ggml.suppress_tokens", "general.architecture", "general.type", "adapter.type",
    "adapter.lora.alpha", "adapter.alora.invocation_tokens",
)  # fmt: skip
KINDS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12)


def damaged(rng: random.Random, sound: bytes) -> bytes:
    """Return a sound file with something wrong with it, often in one place, sometimes in three."""
    if rng.random() < 0.15:
        return rng.choice((flip, flip, cut, overwrite))(rng, sound)
    parts = take_apart(sound)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(DAMAGES)(rng, parts)
    data = parts.pack()
    return flip(rng, data) if rng.random() < 0.03 else data


def head_end(data: bytes) -> int:
    return min(len(data), 16000)


def flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        changed[rng.randrange(rng.choice((64, head_end(data), len(data))))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(rng.choice((64, head_end(data), len(data))))]


def overwrite(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(head_end(data) - 8)
    return data[:at] + struct.pack("<Q", int(rng.choice(NUMBERS[:32])) % 2**64) + data[at + 8 :]


def any_value(rng: random.Random, kind: int) -> int | float | bytes:
    return rng.choice(TEXTS) if kind == STRING else rng.choice(NUMBERS)


def change_value(rng: random.Random, parts: Parts) -> None:
    key = rng.choice(parts.keys)
    if isinstance(key.value, list):
        change_array(rng, parts)
    elif isinstance(key.value, int) and rng.random() < 0.4:
        key.value = max(0, key.value + rng.choice((-1, 1, 2, key.value, -key.value // 2)))
    else:
        key.value = any_value(rng, key.kind)


def change_setting(rng: random.Random, parts: Parts) -> None:
    """One of the settings, of the right type: what llama.cpp looks at most."""
    keys = [key for key in parts.keys if key.kind in (4, 5, 6, 7) and b"tokenizer" not in key.name]
    if keys:
        key = rng.choice(keys)
        key.value = any_value(rng, key.kind)


def change_type(rng: random.Random, parts: Parts) -> None:
    key = rng.choice(parts.keys)
    kind = rng.choice((*KINDS, 13, 255))
    if isinstance(key.value, list):
        key.element = kind
    else:
        key.kind = kind


def change_array(rng: random.Random, parts: Parts) -> None:
    arrays = [key for key in parts.keys if isinstance(key.value, list)]
    if not arrays:
        return
    key = rng.choice(arrays)
    assert isinstance(key.value, list)
    way = rng.randrange(6)
    if way == 0:
        del key.value[rng.randrange(len(key.value) + 1) :]
    elif way == 1:
        key.value += key.value[: rng.choice((1, 5, len(key.value)))]
    elif way == 2:
        key.count = int(rng.choice(NUMBERS[:32])) % 2**64
    elif key.value:
        for _ in range(rng.choice((1, 3, len(key.value)))):
            key.value[rng.randrange(len(key.value))] = any_value(rng, key.element)


def add_key(rng: random.Random, parts: Parts) -> None:
    architecture = parts.key("general.architecture")
    start = (
        architecture.value.decode("utf-8", "replace")
        if architecture and isinstance(architecture.value, bytes)
        else "llama"
    )
    name = rng.choice(GENERAL) if rng.random() < 0.4 else f"{start}.{rng.choice(NAMES)}"
    old = parts.key(name)
    if old is not None and rng.random() < 0.8:
        parts.keys.remove(old)
    kind = rng.choice((4, 4, 4, 6, 6, 7, 8, 2, 5, 10, ARRAY))
    if kind == ARRAY:
        element = rng.choice(KINDS)
        values = [any_value(rng, element) for _ in range(rng.choice((0, 1, 2, 4, 6, 300)))]
        parts.keys.append(Key(name.encode(), ARRAY, values, element))
    else:
        parts.keys.append(Key(name.encode(), kind, any_value(rng, kind)))


def drop_key(rng: random.Random, parts: Parts) -> None:
    parts.keys.remove(rng.choice(parts.keys))


def rename_key(rng: random.Random, parts: Parts) -> None:
    key = rng.choice(parts.keys)
    key.name = rng.choice((rng.choice(parts.keys).name, key.name + b"x", b"", b"\xff", b"a" * 70000))


def change_counts(rng: random.Random, parts: Parts) -> None:
    lie = rng.choice((0, 1, 5, len(parts.keys) + 1, len(parts.tensors) + 1, 2**31, 2**40, 2**64 - 1))
    if rng.random() < 0.5:
        parts.n_keys = lie
    else:
        parts.n_tensors = lie
    if rng.random() < 0.3:
        parts.version = rng.choice((0, 1, 2, 4, 0x03000000, 2**32 - 1))


def change_vocabulary(rng: random.Random, parts: Parts) -> None:
    tokens, kinds = parts.key("tokenizer.ggml.tokens"), parts.key("tokenizer.ggml.token_type")
    if tokens is None or not isinstance(tokens.value, list) or not tokens.value:
        return
    n = len(tokens.value)
    way = rng.randrange(7)
    if way == 0:
        tokens.value[rng.randrange(n)] = rng.choice((*TEXTS, rng.choice(tokens.value)))
    elif way == 1 and kinds is not None and isinstance(kinds.value, list) and kinds.value:
        kinds.value[rng.randrange(len(kinds.value))] = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, -1, 2**31 - 1))
    elif way == 2:
        for i, byte in enumerate(range(rng.choice((10, 256)))):
            tokens.value[i % n] = b"<0x%02X>" % byte
    elif way == 3:
        del tokens.value[rng.randrange(n) :]
    elif way == 4:
        model, pre = parts.key("tokenizer.ggml.model"), parts.key("tokenizer.ggml.pre")
        key = rng.choice([key for key in (model, pre) if key] or parts.keys)
        key.value = any_value(rng, key.kind)
    elif way == 5:
        as_sentencepiece(rng, parts, tokens, n)
    else:
        shrink_vocabulary(parts, tokens, rng.choice((1, 2, 5, 12, 100)))


def as_sentencepiece(rng: random.Random, parts: Parts, tokens: Key, n: int) -> None:
    """Another kind of vocabulary, with the bytes it needs or not quite."""
    model = parts.key("tokenizer.ggml.model")
    if model is None or not isinstance(tokens.value, list) or n < 259:
        return
    model.value = rng.choice((b"llama", b"llama", b"t5", b"plamo2", b"rwkv", b"bert"))
    head: list[int | float | bytes] = [b"<unk>", b"<s>", b"</s>"]
    tokens.value[:259] = head + [b"<0x%02X>" % byte for byte in range(256)]
    if rng.random() < 0.3:
        tokens.value[rng.randrange(n)] = rng.choice(TEXTS)
    kinds = [2, 3, 3, *[6] * 256, *[1] * (n - 259)]
    if (old := parts.key("tokenizer.ggml.token_type")) is not None:
        old.value = [*kinds]
    scores: list[int | float | bytes] = [rng.choice((0.0, -1.0, -5.5, rng.random())) for _ in range(n)]
    parts.keys.append(Key(b"tokenizer.ggml.scores", ARRAY, scores, 6))


def shrink_vocabulary(parts: Parts, tokens: Key, n: int) -> None:
    """Fewer tokens, and an embedding that has as many rows."""
    assert isinstance(tokens.value, list)
    del tokens.value[n:]
    for tensor in parts.tensors:
        if tensor.name == b"token_embd.weight" and len(tensor.shape) == 2:
            tensor.shape[1] = n
            tensor.fit()


def change_tensor(rng: random.Random, parts: Parts) -> None:
    if not parts.tensors:
        return
    tensor = rng.choice(parts.tensors)
    way = rng.randrange(9)
    if way == 0:
        tensor.kind = rng.choice((*range(44), 255, 2**31, 2**32 - 1))
    elif way == 1:
        tensor.kind = rng.choice((0, 1, 2, 8, 9, 12, 15, 24, 25, 26, 27, 28, 30, 39, 40))
        tensor.fit()
    elif way == 2:
        tensor.shape[rng.randrange(len(tensor.shape))] = int(rng.choice(NUMBERS[:32])) % 2**64
    elif way == 3:
        i = rng.randrange(len(tensor.shape))
        tensor.shape[i] = rng.choice((1, 2, 16, 31, 32, 33, 64, 128, tensor.shape[i] * 2))
        tensor.fit()
    elif way == 4:
        tensor.n_axes = rng.choice((0, 1, 2, 3, 4, 5, 2**32 - 1))
    elif way == 5:
        tensor.offset = int(rng.choice(NUMBERS[:32])) % 2**64
    elif way == 6:
        tensor.name = rng.choice(
            (rng.choice(parts.tensors).name, b"", b"x" * 64, b"\xff\0", tensor.name + b"x")
        )
    elif way == 7:
        parts.tensors.remove(tensor)
    else:
        rng.shuffle(parts.tensors)


def reshape(rng: random.Random, parts: Parts) -> None:
    """A size changed wherever it is, so that shapes go on agreeing with the settings."""
    old = rng.choice((2, 4, 8, 16, 32, 64, 128, 300))
    new = rng.choice((1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 33, 48, 64, 96))
    for key in parts.keys:
        if key.kind == 4 and key.value == old and b"tokenizer" not in key.name:
            key.value = new
    for tensor in parts.tensors:
        if old in tensor.shape:
            tensor.shape = [new if extent == old else extent for extent in tensor.shape]
            tensor.fit()


def poison(rng: random.Random, parts: Parts) -> None:
    """Weights that are no numbers, or too large to compute with."""
    if not parts.tensors:
        return
    tensor = rng.choice(parts.tensors)
    value = rng.choice((float("nan"), float("inf"), -3e38, 3e38, 0.0, 1e20))
    data = bytearray(tensor.data)
    for _ in range(rng.choice((1, 5, len(data) // 4))):
        if len(data) >= 4:
            struct.pack_into("<f", data, 4 * rng.randrange(len(data) // 4), value)
    tensor.data = bytes(data)


DAMAGES: tuple[Callable[[random.Random, Parts], None], ...] = (
    change_value, change_value, change_setting, change_setting, change_type, change_array, add_key, add_key,
    drop_key, rename_key, change_counts, change_vocabulary, change_vocabulary, change_tensor, change_tensor,
    reshape, reshape, poison,
)  # fmt: skip
