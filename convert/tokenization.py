"""The proof that a converted vocabulary is the source's: the same ids for every text of the hard corpus."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from convert.errors import VerificationError
from convert.hard_corpus import HARD_CORPUS
from convert.vocabularies import loaded
from convert.vocabularies.oracle import load_oracle
from convert.vocabularies.token_table import Limit
from convert.vocabulary import Vocabulary, plain_limits

SECONDS = 120.0
"""How long llama.cpp may take, several hundred times what it needs."""


@dataclass(frozen=True)
class Difference:
    """A text that llama.cpp tokenizes otherwise than the source, for a reason that is known.

    Attributes:
        text: the text.
        source, written: the ids of either.
        reason: why.
    """

    text: str
    source: list[int]
    written: list[int]
    reason: str


@dataclass(frozen=True)
class TokenizationReport:
    """What the check has found.

    Attributes:
        n_texts: texts compared, each with special tokens read as such and as plain text.
        differences: where llama.cpp is known not to do as the source does.
        other_ends: texts of tokens at which llama.cpp ends a generation and generation_config.json does not.
    """

    n_texts: int
    differences: tuple[Difference, ...]
    other_ends: tuple[str, ...]

    @property
    def is_exact(self) -> bool:
        """Whether every text has the same ids, special tokens being read as such."""
        return not self.differences

    @property
    def reasons(self) -> dict[str, int]:
        """The reasons of the differences, with the number of texts."""
        reasons: dict[str, int] = {}
        for difference in self.differences:
            reasons[difference.reason] = reasons.get(difference.reason, 0) + 1
        return reasons


def check_tokenization(
    path: Path, vocabulary: Vocabulary, texts: Sequence[str] = HARD_CORPUS, *, model: Any = None
) -> TokenizationReport:
    """Compare a written file's tokenization with that of the source's files.

    Args:
        path: the GGUF file; only its vocabulary is loaded, in a process of its own.
        vocabulary: the source's.
        texts: what to compare on, to which come texts with the source's own added tokens.
        model: the file in this process, if llama.cpp has loaded it here already.

    Raises:
        VerificationError: llama.cpp does not load the vocabulary; or a text has other ids for no known
            reason; or a token that ends a generation does not in llama.cpp.
        CheckpointError: the ``tokenizers`` library refuses the source.
    """
    texts = list(dict.fromkeys([*texts, *_added_texts(vocabulary)]))
    if vocabulary.table.normalize is not None:  # what is excused below must hold in its composed form
        texts = list(dict.fromkeys([*texts, *map(vocabulary.table.normalize, texts)]))
    oracle = load_oracle(vocabulary.table)
    written = _tokenize(path, texts) if model is None else loaded.tokenize_all(model, texts)
    differences = []
    for plain in (False, True):
        limits = [*vocabulary.table.limits, *(plain_limits(vocabulary) if plain else [])]
        oracle.encode_special_tokens = plain
        ids = _expected(oracle, vocabulary, texts)
        given = written["plain" if plain else "parsed"]
        found = _differences(path, texts, ids, given, limits)
        differences += [] if plain else found
    _check_ends(path, vocabulary, written["eog"])
    others = sorted(set(written["eog"]) - {*vocabulary.generation_ids, vocabulary.end.eos})
    ends = tuple(vocabulary.tokens[i] for i in others)
    return TokenizationReport(len(texts), tuple(differences), ends)


def _added_texts(vocabulary: Vocabulary) -> Iterator[str]:
    """Yield texts with the first of the added tokens, alone and among others."""
    for token in list(vocabulary.table.added.values())[:40]:
        yield token.text
        yield f"a{token.text}b{token.text}{token.text}\n{token.text} c"


def _expected(oracle: Tokenizer, vocabulary: Vocabulary, texts: Sequence[str]) -> list[list[int]]:
    before = [vocabulary.bos] if vocabulary.adds_bos else []
    after = [vocabulary.end.eos] if vocabulary.adds_eos else []
    encodings = oracle.encode_batch_fast(list(texts), add_special_tokens=False)
    return [[*before, *encoding.ids, *after] for encoding in encodings]


def _differences(
    path: Path,
    texts: Sequence[str],
    source: Sequence[list[int]],
    written: Sequence[list[int]],
    limits: Sequence[Limit],
) -> list[Difference]:
    differences = []
    for text, ids, given in zip(texts, source, written, strict=True):
        if ids == given:
            continue
        reason = next((limit.reason for limit in limits if limit.applies(text)), None)
        if reason is None:
            raise VerificationError(
                f"{path} tokenizes {text!r} as {given}, and the source's tokenizer as {ids}"
            )
        differences.append(Difference(text, ids, given, reason))
    return differences


def _check_ends(path: Path, vocabulary: Vocabulary, ends: Sequence[int]) -> None:
    for token_id in vocabulary.generation_ids:
        if token_id not in ends:
            raise VerificationError(
                f"{path}: generation_config.json ends a generation at {vocabulary.tokens[token_id]!r} "
                f"({token_id}), llama.cpp does not"
            )


def _tokenize(path: Path, texts: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-P", str(loaded.__file__), str(path)]
    try:
        done = subprocess.run(
            command, input=json.dumps(texts).encode(), capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise VerificationError(
            f"{path}: llama.cpp has not tokenized the corpus in {SECONDS:.0f} s"
        ) from error
    if done.returncode != 0:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines() or [
            f"status {done.returncode}"
        ]
        raise VerificationError(f"{path}: llama.cpp fails on the vocabulary: {reason[-1]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
