"""GGUF files with nothing, or not much, but a vocabulary; and changes to JSON files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from convert.vocabularies.vocabulary import Vocabulary
from tests.random_checkpoints.planned import add_value

Json = dict[str, Any]


def change(path: Path, edit: Callable[[Json], None]) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    edit(values)
    path.write_text(json.dumps(values, ensure_ascii=True))


def write_vocabulary(path: Path, vocabulary: Vocabulary, **changed: object) -> Path:
    """Write a file for llama.cpp's ``vocab_only``; ``changed`` has other values by a key's last word."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(str(changed.get("name", "none")))
    _add_metadata(writer, vocabulary, changed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def write_small_model(
    path: Path, vocabulary: Vocabulary, without: Sequence[str] = (), **changed: object
) -> Path:
    """Write a model of one layer, all zeros, for what needs a model around the vocabulary.

    It has no keys of ``without``; ``changed`` is as for ``write_vocabulary``.
    """
    width = 32
    writer = gguf.GGUFWriter(path, "llama")
    _add_metadata(writer, vocabulary, changed, without)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("token_embd.weight", np.zeros((len(vocabulary.tokens), width), np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.zeros(width, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((width, width), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_metadata(
    writer: gguf.GGUFWriter,
    vocabulary: Vocabulary,
    changed: Mapping[str, object],
    without: Sequence[str] = (),
) -> None:
    for key, value in vocabulary.metadata().items():
        if key in without:
            continue
        add_value(writer, key, changed.get(key.rpartition(".")[2], value))
