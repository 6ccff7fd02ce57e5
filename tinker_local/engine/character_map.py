"""The table by which a unigram vocabulary (``tokenizer.ggml.model`` t5) rewrites text before it looks for
tokens: a trie as SentencePiece's ``precompiled_charsmap`` has it, a double array, and the rewritten texts.

llama.cpp raises an exception that nobody catches where a text leads it out of the table. Layout:
``llm_tokenizer_ugm_session`` in ``src/llama-vocab.cpp`` of llama.cpp; of a node's 32 bits, bits 10 to 30
are the base of its children (256 times that if bit 9 is set), bits 0 to 7 its character, bit 8 says that
it has a value.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.gguf_arrays import Array

_NAME = "tokenizer.ggml.precompiled_charsmap"
_BYTES = (0, 1)  # UINT8 and INT8 of enum gguf_type
_CHARACTERS = np.arange(1, 256, dtype=np.int64)


def wrong_character_map(value: object) -> Iterator[str]:
    """What is wrong with the table, as ends of a sentence about the file; it may be missing (None)."""
    if value is None:
        return
    if not isinstance(value, Array) or value.kind not in _BYTES or value.values is None:
        yield f"{_NAME} is no array of bytes"
        return
    data = value.values.tobytes()
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 or size + 4 >= len(data) or size % 4:
        yield f"{_NAME} has {len(data):,} bytes, which is not room for a trie of {size:,}"
        return
    nodes = np.frombuffer(data, "<u4", size // 4, 4).astype(np.int64)
    if not _stays_inside(nodes, data[4 + size :]):
        yield f"{_NAME} leads out of itself"


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
