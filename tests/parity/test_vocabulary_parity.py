"""Converted vocabularies against the programs that the source files are made for."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from convert.vocabularies.byte_level import byte_characters
from convert.vocabularies.embedded import KEY, SPLITS_SPECIAL, EmbeddedTokenizer
from convert.vocabularies.hard_corpus import HARD_CORPUS
from convert.vocabularies.oracle import load_oracle
from convert.vocabularies.splits import KIMI_K2
from convert.vocabularies.tiktoken import read_tiktoken
from convert.vocabularies.tokenizer_config import TokenizerConfig
from convert.vocabularies.vocabulary import read_vocabulary
from tests.random_checkpoints.kinds import KINDS
from tests.random_checkpoints.tokenizers import write_tokenizer

pytestmark = pytest.mark.parity

MODEL_TYPES = {
    "llama3": "llama", "qwen2": "qwen2", "qwen35": "qwen3_5", "deepseek-v3": "deepseek_v3", "gpt2": "gpt2",
    "gpt-oss": "gpt_oss", "smollm": "llama", "olmo2": "olmo2", "phi-4": "phi3", "nemotron-h": "nemotron_h",
    "tekken": "mistral", "llama2": "llama", "mistral": "mistral", "phi-3": "phi3", "gemma": "gemma",
    "yi": "llama",
}  # fmt: skip
MADE_ANEW = ("smollm", "llama2", "yi")
"""Kinds whose pipeline transformers 5 makes anew by the class, and then reads some texts otherwise than the
tokenizer.json that version 4 runs: digits of other scripts, spaces at the start."""


def official_of(directory: Path, model_type: str) -> Any:
    transformers = pytest.importorskip("transformers")
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    return transformers.AutoTokenizer.from_pretrained(directory)


def embedded_of(directory: Path, model_type: str, n_rows: int) -> EmbeddedTokenizer:
    vocabulary = read_vocabulary(directory, {"model_type": model_type}, n_rows)
    values = vocabulary.metadata()
    return EmbeddedTokenizer(str(values[KEY]), n_rows, splits_special=bool(values[SPLITS_SPECIAL]))


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_transformers(tmp_path: Path, kind: str) -> None:
    written = write_tokenizer(tmp_path, kind, 700)
    official = official_of(tmp_path, MODEL_TYPES[kind])
    vocabulary = read_vocabulary(tmp_path, {"model_type": MODEL_TYPES[kind]}, written.n_tokens)
    assert official.eos_token_id == vocabulary.end.eos
    assert official.pad_token_id == vocabulary.pad
    assert official.bos_token_id == vocabulary.bos
    embedded = embedded_of(tmp_path, MODEL_TYPES[kind], written.n_tokens)
    for text in HARD_CORPUS:
        ids = embedded.encode(text, add_special=True)
        if kind not in MADE_ANEW:
            assert ids == official.encode(text)
        for skips in (False, True):
            if kind != "yi":
                read = official.decode(ids, skip_special_tokens=skips)
                assert embedded.decode(ids, skip_special=skips) == read


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].sentencepiece])
def test_sentencepiece(tmp_path: Path, kind: str) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    written = write_tokenizer(tmp_path, kind, 700, files=("tokenizer.model",))
    vocabulary = read_vocabulary(tmp_path, {}, written.n_tokens)
    official = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    oracle = vocabulary.oracle
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
    oracle = load_oracle(table, TokenizerConfig(tmp_path), written.n_tokens)
    rng = random.Random(1)
    words = "abAB éÉ 'sS\n\r 019.,/कि中日々〇😀"
    texts = [*HARD_CORPUS, *("".join(rng.choices(words, k=40)) for _ in range(1000))]
    for text in texts:
        ids = oracle.encode(text, add_special_tokens=False).ids
        assert ids == official.encode(text, allowed_special="all")
