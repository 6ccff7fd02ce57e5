"""tinker-local's own tokenizer on converted vocabularies, against the ``tokenizers`` library."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders

from convert.vocabularies.hard_corpus import HARD_CORPUS
from convert.vocabularies.oracle import load_oracle
from convert.vocabularies.vocabulary import read_vocabulary
from tests.convert.vocabulary_files import write_small_model
from tests.random_checkpoints.kinds import KINDS
from tests.random_checkpoints.tokenizers import write_tokenizer
from tinker_local import Tokenizer
from tinker_local.llama.model import load_model

SHOWN = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>")
"""Special tokens of gpt-oss that llama.cpp makes part of the text."""
EXACT = ("gpt2", "llama3", "deepseek-v3", "smollm", "olmo2", "llama2", "yi")


def both(directory: Path, kind: str) -> tuple[Tokenizer, Library]:
    written = write_tokenizer(directory, kind, 700)
    vocabulary = read_vocabulary(directory, {}, written.n_tokens)
    library = load_oracle(vocabulary.table)
    if library.decoder is None:
        library.decoder = decoders.ByteLevel()
    return Tokenizer(load_model(write_small_model(directory / "model.gguf", vocabulary), 0)), library


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skip_special_tokens", [False, True])
def test_decoding(tmp_path: Path, kind: str, skip_special_tokens: bool) -> None:
    ours, library = both(tmp_path, kind)
    for text in HARD_CORPUS:
        if kind == "gpt-oss" and skip_special_tokens and any(token in text for token in SHOWN):
            continue
        ids = library.encode(text, add_special_tokens=False).ids
        expected = library.decode(ids, skip_special_tokens=skip_special_tokens)
        assert ours.decode(ids, skip_special_tokens=skip_special_tokens) == expected


@pytest.mark.parametrize("kind", EXACT)
def test_encoding(tmp_path: Path, kind: str) -> None:
    ours, library = both(tmp_path, kind)
    for text in HARD_CORPUS:
        assert (
            ours.encode(text, add_special_tokens=False)
            == library.encode(text, add_special_tokens=False).ids
        )


@pytest.mark.parametrize("kind", ["llama2", "mistral", "gemma", "llama3"])
def test_a_text_comes_back(tmp_path: Path, kind: str) -> None:
    ours, _ = both(tmp_path, kind)
    text = "Hello there,\n  World"
    assert ours.decode(ours.encode(text), skip_special_tokens=True) == text
