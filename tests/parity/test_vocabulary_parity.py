"""Converted vocabularies against the programs that the source files are made for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from convert.vocabularies.byte_level import byte_characters
from convert.vocabularies.hard_corpus import HARD_CORPUS
from convert.vocabularies.oracle import load_oracle
from convert.vocabularies.splits import KIMI_K2
from convert.vocabularies.tiktoken import read_tiktoken
from convert.vocabularies.vocabulary import read_vocabulary
from tests.random_checkpoints.kinds import KINDS
from tests.random_checkpoints.tokenizers import write_tokenizer

pytestmark = pytest.mark.parity

TAKEN_AS_THEY_ARE = (
    "gpt2",
    "llama3",
    "qwen2",
    "deepseek-v3",
    "gpt-oss",
    "nemotron-h",
    "tekken",
    "mistral",
    "gemma",
)
"""Kinds whose tokenizer.json transformers uses; of some classes it makes the pipeline anew."""


@pytest.mark.parametrize("kind", TAKEN_AS_THEY_ARE)
def test_transformers(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    written = write_tokenizer(tmp_path, kind, 700)
    vocabulary = read_vocabulary(tmp_path, {}, written.n_tokens)
    official: Any = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert official.eos_token_id == vocabulary.end.eos
    assert official.pad_token_id == vocabulary.pad
    assert official.bos_token_id in (vocabulary.bos, None)
    oracle = load_oracle(vocabulary.table)
    before = [vocabulary.bos] if vocabulary.adds_bos else []
    after = [vocabulary.end.eos] if vocabulary.adds_eos else []
    for text in HARD_CORPUS:
        ids = oracle.encode(text, add_special_tokens=False).ids
        assert [*before, *ids, *after] == official.encode(text)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].sentencepiece])
def test_sentencepiece(tmp_path: Path, kind: str) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    written = write_tokenizer(tmp_path, kind, 700, files=("tokenizer.model",))
    vocabulary = read_vocabulary(tmp_path, {}, written.n_tokens)
    official = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    oracle = load_oracle(vocabulary.table)
    special = [token.text for token in vocabulary.table.added.values()]
    for text in HARD_CORPUS:
        if not any(token in text for token in special):  # its pieces of this kind stand in no text
            assert oracle.encode(text, add_special_tokens=False).ids == official.encode(text)


def test_tiktoken(tmp_path: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    written = write_tokenizer(tmp_path, "kimi-k2", 900)
    table = read_tiktoken(tmp_path / "tiktoken.model", written.n_tokens)
    characters = {character: byte for byte, character in enumerate(byte_characters())}
    ranks = {
        bytes(characters[c] for c in text): rank
        for rank, text in table.texts.items()
        if rank not in table.added
    }
    special = {token.text: token_id for token_id, token in table.added.items()}
    official = tiktoken.Encoding("kimi", pat_str=KIMI_K2, mergeable_ranks=ranks, special_tokens=special)
    oracle = load_oracle(table)
    rng = random.Random(1)
    words = "abAB éÉ 'sS\n\r 019.,/कि中日々〇😀"
    texts = [*HARD_CORPUS, *("".join(rng.choices(words, k=40)) for _ in range(1000))]
    for text in texts:
        ids = oracle.encode(text, add_special_tokens=False).ids
        assert ids == official.encode(text, allowed_special="all")
