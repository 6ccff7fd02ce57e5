"""GGUF files with nothing but a vocabulary."""

from __future__ import annotations

from pathlib import Path

import gguf

from convert.vocabulary import Vocabulary


def write_vocabulary(path: Path, vocabulary: Vocabulary, **changed: object) -> Path:
    """Write a file for llama.cpp's ``vocab_only``; ``changed`` has other values by a key's last word."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in vocabulary.metadata().items():
        value = changed.get(key.rpartition(".")[2], value)
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path
