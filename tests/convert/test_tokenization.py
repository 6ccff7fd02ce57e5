# ruff: noqa: RUF001 - many scripts have characters that look alike
"""Every kind of tokenizer, converted and loaded in llama.cpp, against the ``tokenizers`` library."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from convert.errors import VerificationError
from convert.verification.tokenization import TokenizationReport, check_tokenization
from convert.vocabularies.hard_corpus import HARD_CORPUS
from convert.vocabularies.splits import SPLITS
from convert.vocabularies.vocabulary import Vocabulary, read_vocabulary
from tests.convert.vocabulary_files import write_vocabulary
from tests.long import few
from tests.random_checkpoints.kinds import KINDS
from tests.random_checkpoints.tokenizers import Written, write_tokenizer

N_PADDED = 24
CASES = [(kind, name) for kind in KINDS for name in ("tokenizer.json", "tokenizer.model", "tiktoken.model")
         if (name == "tokenizer.json" and kind != "kimi-k2")
         or (name == "tokenizer.model" and KINDS[kind].sentencepiece)
         or (name == "tiktoken.model" and kind == "kimi-k2")]  # fmt: skip

PRE = {
    "gpt2": "gpt-2",
    "llama3": "llama-bpe",
    "qwen2": "qwen2",
    "qwen35": "qwen35",
    "deepseek-v3": "deepseek-v3",
    "gpt-oss": "granite-embed-multi-97m",
    "smollm": "smollm",
    "olmo2": "dbrx",
    "phi-4": "dbrx",
    "nemotron-h": "tekken",
    "tekken": "tekken",
    "kimi-k2": "kimi-k2",
}
REASONS = {
    "qwen2": "does not compose characters",
    "qwen35": "does not compose characters",
    "gpt-oss": "does not part words at capitals outside ASCII",
    "phi-4": "does not drop the spaces",
    "nemotron-h": "parts combining marks",
    "tekken": "parts combining marks",
    "kimi-k2": "parts combining marks",
    "phi-3": "does not drop the spaces",
    "gemma": "takes a written",
    "mistral": "puts a space before a text that begins with one",
}
"""Why a kind is not exact everywhere; the others are."""


@dataclass(frozen=True)
class Converted:
    kind: str
    directory: Path
    written: Written
    vocabulary: Vocabulary
    path: Path

    def check(self, texts: tuple[str, ...] = HARD_CORPUS) -> TokenizationReport:
        return check_tokenization(self.path, self.vocabulary, texts)


Convert = Callable[[str, str], Converted]


@pytest.fixture(scope="module")
def convert(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    made: dict[tuple[str, str], Converted] = {}

    def make(kind: str, name: str) -> Converted:
        if (kind, name) not in made:
            directory = tmp_path_factory.mktemp(kind)
            written = write_tokenizer(directory, kind, 700, files=(name,))
            vocabulary = read_vocabulary(directory, {}, written.n_tokens + N_PADDED)
            path = write_vocabulary(directory / "vocabulary.gguf", vocabulary)
            made[kind, name] = Converted(kind, directory, written, vocabulary, path)
        return made[kind, name]

    return make


PIECES = {
    "basic": [chr(code) for code in range(0x250)],
    "marks": [chr(code) for code in range(0x300, 0x370)] + ["e", "E", " ", "o", "क", "ก"],
    "scripts": [chr(c) for c in range(0x370, 0x3100, 3) if unicodedata.category(chr(c)) != "Cn"],
    "east": [chr(code) for code in (*range(0x3000, 0x3100), *range(0x4E00, 0x4F00))],
    "astral": [chr(c) for c in range(0x10000, 0x20000, 41) if unicodedata.category(chr(c)) != "Cn"],
    "words": [
        "'s", "'LL", "'ſ", "'T", "\r\n", "\n\n", "   ", "\t", " x", "Aa",
        "É", "é", "é", "中", "々", "123", "٣", "½", "/", "!", "_", "हि", "ที่", "👍🏽",
    ],
    "code": list("abcxyzABCXYZ01239 \n\t.,;:(){}[]<>=+-*/'\"_#$%&!?@^~|\\`"),
}  # fmt: skip


def random_texts(kind: str, n: int) -> list[str]:
    """Return ``n`` texts of each mixture of pieces."""
    rng = random.Random(7)
    added = list(KINDS[kind].special + KINDS[kind].added)
    texts = []
    for pieces in PIECES.values():
        for pool in (pieces, [*pieces, *PIECES["words"]], [*pieces[:40], *PIECES["code"], *added]):
            texts += ["".join(rng.choices(pool, k=rng.randint(1, 40))) for _ in range(n)]
    return texts


@pytest.mark.parametrize(("n_random", "n_texts"), few(1, [(3, 130), (60, 1000)]))
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_hard_corpus_and_random_texts(
    convert: Convert, kind: str, name: str, n_random: int, n_texts: int
) -> None:
    converted = convert(kind, name)
    assert converted.vocabulary.table.pre == PRE.get(kind, "default")
    report = converted.check((*HARD_CORPUS, *random_texts(kind, n_random)))
    assert report.n_texts > n_texts
    differences = [d for d in report.differences if d.text in HARD_CORPUS]
    expected = REASONS.get(kind) if (kind, name) != ("mistral", "tokenizer.model") else None
    if expected is None:
        assert not differences
    else:
        assert all(expected in difference.reason for difference in differences)
        assert 0 < len(differences) < len(HARD_CORPUS) / 4


def test_definitions_differ_on_the_hard_corpus() -> None:
    splits = {(*split.steps, split.uses_gpt2): split.pre_tokenizer() for split in SPLITS}
    pieces = {str([each.pre_tokenize_str(text) for text in HARD_CORPUS]) for each in splits.values()}
    assert len(pieces) == len(splits) == 9


WRONG = [
    ("gpt2", "smollm"),
    ("gpt2", "llama-bpe"),
    ("smollm", "gpt-2"),
    ("llama3", "qwen2"),
    ("qwen2", "qwen35"),
    ("qwen35", "qwen2"),
    ("deepseek-v3", "llama-bpe"),
    ("gpt-oss", "tekken"),
    ("gpt-oss", "gpt-4o"),
    ("olmo2", "default"),
    ("kimi-k2", "tekken"),
]


@pytest.mark.parametrize(("kind", "pre"), few(4, WRONG))
def test_a_wrong_name_is_found(convert: Convert, tmp_path: Path, kind: str, pre: str) -> None:
    converted = convert(kind, next(name for case, name in CASES if case == kind))
    path = write_vocabulary(tmp_path / "wrong.gguf", converted.vocabulary, pre=pre)
    with pytest.raises(VerificationError, match=r"llama\.cpp tokenizes"):
        check_tokenization(path, converted.vocabulary)


@pytest.mark.parametrize("kind", ["llama2", "gemma"])
def test_a_wrong_score_is_found(convert: Convert, tmp_path: Path, kind: str) -> None:
    vocabulary = convert(kind, "tokenizer.json").vocabulary
    scores = vocabulary.metadata()["tokenizer.ggml.scores"]
    assert isinstance(scores, list)
    path = write_vocabulary(tmp_path / "wrong.gguf", vocabulary, scores=[-score for score in scores])
    with pytest.raises(VerificationError, match=r"llama\.cpp tokenizes"):
        check_tokenization(path, vocabulary)


def test_a_wrong_prefix_and_bos_are_found(convert: Convert, tmp_path: Path) -> None:
    vocabulary = convert("llama2", "tokenizer.json").vocabulary
    for changed in ({"add_space_prefix": False}, {"add_bos_token": False}, {"bos_token_id": 2}):
        path = write_vocabulary(tmp_path / "wrong.gguf", vocabulary, **changed)
        with pytest.raises(VerificationError, match=r"llama\.cpp tokenizes"):
            check_tokenization(path, vocabulary)


def test_a_file_that_llama_cpp_refuses_or_ends_at(convert: Convert, tmp_path: Path) -> None:
    vocabulary = convert("gpt2", "tokenizer.json").vocabulary
    (tmp_path / "none.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        VerificationError, match=r"none\.gguf: llama.cpp fails on the vocabulary: .*not load"
    ):
        check_tokenization(tmp_path / "none.gguf", vocabulary)
    twice = [*vocabulary.tokens[:-1], vocabulary.tokens[0]]  # llama.cpp asserts that texts differ
    path = write_vocabulary(tmp_path / "twice.gguf", vocabulary, tokens=twice)
    with pytest.raises(VerificationError, match=r"llama\.cpp fails on the vocabulary"):
        check_tokenization(path, vocabulary)
