"""Checks a model's vocabulary: llama.cpp must be able to load it and to tokenize every text with it.

Sources of the rules: ``src/llama-vocab.cpp`` of llama.cpp, ``llama_vocab::impl::load`` and the tokenizers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from convert.gguf.arrays import Array
from convert.gguf.file import BOOL, FLOAT32, INT32, STRING, UINT32
from tinker_local.gguf.parts import ModelFiles

_START = "tokenizer.ggml."
_BYTE, _LAST_KIND = 6, 6  # enum llama_token_type
_BYTELESS = ("bert", "rwkv")  # llama.cpp has no way to write a byte of these
_BYTE_PAIRS = ("gpt2", "gemma4", "hybriddna", "whitespace")
_DEFAULTS: dict[str, dict[str, int]] = {  # ids that llama.cpp takes where the file has none
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "bert": {"bos": 101, "unknown": 100, "seperator": 102, "padding": 0, "mask": 103},
    "gpt2": {"bos": 11, "eos": 11},
    "hybriddna": {"bos": 11, "eos": 11},
    "whitespace": {"bos": 11, "eos": 11},
    "t5": {"eos": 1, "unknown": 2, "padding": 0},
    "plamo2": {"bos": 1, "eos": 2, "unknown": 0, "padding": 3},
    "gemma4": {},
    "rwkv": {},
}
_ADDED = {"llama": ("bos",), "bert": ("bos", "seperator"), "gemma4": ("bos",), "t5": ("eos",)}
_NEEDED = {"llama": ("unknown",), "bert": ("unknown",), "t5": ("unknown",)}  # for what is not in it
_FLAGS = {"bos": "add_bos_token", "eos": "add_eos_token", "seperator": "add_sep_token"}
_ID = re.compile(r"tokenizer\.ggml\.(\w+)_token_id")
_TEMPLATE = "tokenizer.chat_template"
_LONGEST_TEMPLATE = 1 << 20
_LONGEST_KEY = 255
_BYTES = [*range(1, 0xC0), *range(0xC2, 0xF5)]  # those that UTF-8 has
_CHARACTER_MAP = "tokenizer.ggml.precompiled_charsmap"
_BYTE_KINDS = (0, 1)  # UINT8 and INT8 of enum gguf_type
_CHARACTERS = np.arange(1, 256, dtype=np.int64)


def wrong_vocabulary(model: ModelFiles) -> Iterator[str]:
    """Yield what is wrong with a vocabulary, as message fragments: "<file> cannot be used: <problem>"."""
    kind, tokens = model.text(_START + "model"), model.array(_START + "tokens")
    if kind not in _DEFAULTS:
        yield f"{_START}model is {kind or 'missing'}; known are {', '.join(_DEFAULTS)}"
    if tokens is None or tokens.kind != STRING or not len(tokens):
        yield f"{_START}tokens is missing, empty or no array of texts"
        return
    assert kind is not None
    yield from _wrong_lengths(model, tokens)
    texts = _as_read(tokens)
    if len(known := set(texts)) != len(texts):
        yield f"{_START}tokens has {len(texts) - len(known)} tokens twice"
    yield from _wrong_kinds(model, kind, texts)
    yield from _wrong_pairs(model, kind, tokens)
    yield from _wrong_bytes(kind, known)
    yield from _wrong_ids(model, kind, len(tokens))
    yield from wrong_character_map(model.metadata.get(_START + "precompiled_charsmap"))
    yield from _wrong_templates(model)


def _wrong_templates(model: ModelFiles) -> Iterator[str]:
    for key, template in model.metadata.items():
        if key != _TEMPLATE and not key.startswith(f"{_TEMPLATE}."):
            continue
        if not isinstance(template, str) or len(template.encode()) >= _LONGEST_TEMPLATE:
            yield f"{key[:80]} is no text of less than {_LONGEST_TEMPLATE:,} bytes"
        if len(key.encode()) > _LONGEST_KEY:
            yield f"{key[:80]}.. has a name of more than {_LONGEST_KEY} bytes"


def _wrong_lengths(model: ModelFiles, tokens: Array) -> Iterator[str]:
    embedding = model.tensors.get("token_embd.weight")
    if embedding is not None and embedding.ne[1] != len(tokens):
        yield (
            f"{_START}tokens has {len(tokens):,} tokens, and token_embd.weight a row for each of "
            f"{embedding.ne[1]:,}"
        )
    for name, kinds in (("scores", (FLOAT32, INT32)), ("token_type", (INT32,))):
        if _START + name not in model.metadata:
            continue
        array = model.array(_START + name)
        if array is None or array.kind not in kinds or len(array) < len(tokens):
            yield f"{_START}{name} is no array with a number for each of {len(tokens):,} tokens"
        elif array.values is not None and np.isnan(array.values.astype(np.float64)).any():
            yield f"{_START}{name} has entries that are no numbers"


def _as_read(tokens: Array) -> list[bytes]:
    """Return the tokens as llama.cpp has them: up to a zero, and never empty."""
    texts = tokens.texts()
    if tokens.has_zeros():
        texts = [text.split(b"\0", 1)[0] for text in texts]
    if b"" in texts:
        texts = [text or b"[EMPTY_%d]" % token for token, text in enumerate(texts)]
    return texts


def _wrong_kinds(model: ModelFiles, kind: str, texts: list[bytes]) -> Iterator[str]:
    """A token of the kind byte must name its byte, and kinds must be among llama.cpp's."""
    array = model.array(_START + "token_type")
    if array is None or array.values is None or kind == "plamo2":
        return
    for token in np.flatnonzero(array.values[: len(texts)] == _BYTE).tolist():
        if kind in _BYTELESS or not re.fullmatch(rb"<0x[0-9A-Fa-f]{2}>", texts[token]):
            yield f"the token {token} is said to be a byte ({kind}), and is {texts[token][:40]!r}"
            return
    if len(array) and not 0 <= int(array.values.min()) <= int(array.values.max()) <= _LAST_KIND:
        yield f"{_START}token_type has entries outside 0 to {_LAST_KIND}"


def _wrong_pairs(model: ModelFiles, kind: str, tokens: Array) -> Iterator[str]:
    if kind not in _BYTE_PAIRS:
        return
    if not tokens.is_utf8():
        yield f"{_START}tokens has texts that are not UTF-8"
    merges = model.array(_START + "merges")
    if merges is None:
        if model.text(_START + "pre") != "kimi-k2":
            yield f"{_START}merges is missing or no array"
    elif merges.kind != STRING:
        yield f"{_START}merges is no array of texts"
    elif not merges.have_a_space():
        yield f"{_START}merges has entries that are not two texts with a space between"


def _wrong_bytes(kind: str, known: set[bytes]) -> Iterator[str]:
    """llama.cpp writes unknown text as bytes, and ends the process if a byte has no token."""
    if kind == "llama":
        missing = [
            byte
            for byte in _BYTES
            if b"<0x%02X>" % byte not in known and (byte >= 0x80 or bytes([byte]) not in known)
        ]
        if missing:
            yield (
                f"its vocabulary has no token <0x{missing[0]:02X}> ({len(missing)} bytes are missing), so "
                "that llama.cpp could not tokenize every text"
            )
    if kind == "rwkv" and not {b"\n", b"\\n"} & known:
        yield "its vocabulary has no token for a new line"


def _wrong_ids(model: ModelFiles, kind: str, n_tokens: int) -> Iterator[str]:
    ids = {name: token for name, token in _DEFAULTS[kind].items() if token < n_tokens}
    for key, value in model.metadata.items():
        if match := _ID.fullmatch(key):
            if model.types[key] != UINT32 or not isinstance(value, int) or value >= n_tokens:
                yield f"{key} is {value!r:.40}, which is no id of {n_tokens:,} tokens"
            else:
                ids[match[1]] = value
    for name, flag in _FLAGS.items():
        added = model.metadata.get(_START + flag, name in _ADDED.get(kind, ()))
        if model.types.get(_START + flag, BOOL) != BOOL:
            yield f"{_START}{flag} is not a bool"
        elif added and name not in ids and (name != "seperator" or kind == "bert"):
            yield f"{_START}{flag} is true, and there is no {name}_token_id"
    for name in _NEEDED.get(kind, ()):
        if name not in ids:
            yield f"{_START}{name}_token_id is missing"


def wrong_character_map(value: object) -> Iterator[str]:
    """Yield what is wrong with the table by which a unigram vocabulary rewrites text; None: no table.

    The table (``precompiled_charsmap`` of SentencePiece) is a trie in a double array, and the rewritten
    texts behind it. llama.cpp raises an exception that nobody catches where a text leads it out of the
    table. Layout: ``llm_tokenizer_ugm_session`` in ``src/llama-vocab.cpp``. Of a node's 32 bits, bits 10
    to 30 are the base of its children (256 times that if bit 9 is set), bits 0 to 7 its character, and
    bit 8 says that it has a value.
    """
    if value is None:
        return
    if not isinstance(value, Array) or value.kind not in _BYTE_KINDS or value.values is None:
        yield f"{_CHARACTER_MAP} is no array of bytes"
        return
    data = value.values.tobytes()
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 or size + 4 >= len(data) or size % 4:
        yield f"{_CHARACTER_MAP} has {len(data):,} bytes, which is not room for a trie of {size:,}"
        return
    nodes = np.frombuffer(data, "<u4", size // 4, 4).astype(np.int64)
    if not _stays_inside(nodes, data[4 + size :]):
        yield f"{_CHARACTER_MAP} leads out of itself"


def _stays_inside(nodes: NDArray[np.int64], texts: bytes) -> bool:
    """Walk the whole trie, a level at a time."""
    bases = (nodes >> 10) << ((nodes & (1 << 9)) >> 6)
    last = texts.rfind(b"\0")
    if not len(nodes):
        return True
    level, seen = bases[:1], np.zeros(len(nodes), bool)
    while len(level):
        if int((level | 0xFF).max()) >= len(nodes):
            return False
        places = (level[:, None] ^ _CHARACTERS).ravel()
        matches = (nodes[places] & (1 << 31 | 0xFF)) == np.tile(_CHARACTERS, len(level))
        places = places[matches]
        places = places[~seen[places]]
        seen[places] = True
        leaves = places[(nodes[places] >> 8) & 1 == 1]
        values = leaves ^ bases[leaves]
        if len(values) and (
            int(values.max()) >= len(nodes) or int((nodes[values] & 0x7FFFFFFF).max()) > last
        ):
            return False
        level = np.unique(places ^ bases[places])
    return True
