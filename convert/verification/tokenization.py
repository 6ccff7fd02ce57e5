"""The proof that a converted vocabulary is the source's: the same ids for every text of the hard corpus.

The tokenizer.json in the file, which tinker-local runs, must give the ids of the source's tokenizer without
exception. llama.cpp's own tokenizer, which other programs run, may differ where that is known (``Limit``).
The source's tokenizer, changed to do as llama.cpp does, must then give llama.cpp's ids, and such texts are
counted. Any other difference is an error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from convert.errors import VerificationError
from convert.gguf.file import read_head
from convert.vocabularies import loaded
from convert.vocabularies.embedded import KEY, SPLITS_SPECIAL, EmbeddedTokenizer
from convert.vocabularies.hard_corpus import HARD_CORPUS
from convert.vocabularies.oracle import copy_of
from convert.vocabularies.token_table import Limit
from convert.vocabularies.vocabulary import Vocabulary, plain_limits

SECONDS = 120.0
"""The time limit for llama.cpp, several hundred times what it needs."""


@dataclass(frozen=True)
class Difference:
    """A text that llama.cpp's own tokenizer reads otherwise than the source, for a reason that is known.

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
    """The result of comparing two tokenizers.

    Attributes:
        n_texts: texts compared, each with special tokens read as such and as plain text.
        differences: texts with other ids in llama.cpp's own tokenizer, special tokens being read as such.
        other_ends: tokens at which llama.cpp ends a generation and generation_config.json does not.
    """

    n_texts: int
    differences: tuple[Difference, ...]
    other_ends: tuple[str, ...]

    @property
    def is_exact(self) -> bool:
        """Whether every text has the source's ids in llama.cpp's own tokenizer, too."""
        return not self.differences

    @property
    def reasons(self) -> dict[str, int]:
        """For each reason of a difference, the number of texts."""
        return dict(Counter(difference.reason for difference in self.differences))


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
        VerificationError: llama.cpp does not load the vocabulary; or a text has other ids by the file's
            tokenizer.json, or by llama.cpp for no known reason; or a token that ends a generation does not
            in llama.cpp.
        CheckpointError: the ``tokenizers`` library refuses the source.
    """
    texts = list(dict.fromkeys([*texts, *_added_texts(vocabulary)]))
    written = _tokenize(path, texts) if model is None else loaded.tokenize_all(model, texts)
    ends = frozenset(written["eog"])
    _check_ends(path, vocabulary, ends)
    parsed = _Reading(vocabulary, texts, written["parsed"], plain=False)
    plain = _Reading(vocabulary, texts, written["plain"], plain=True)
    embedded = _embedded(path, vocabulary)
    for reading in (parsed, plain):
        reading.compare()
        reading.check_embedded(path, embedded)
    _explain(vocabulary, parsed, plain)
    for reading in (parsed, plain):
        reading.refuse_left(path)
    others = sorted(ends - {*vocabulary.generation_ids, vocabulary.end.eos})
    return TokenizationReport(
        len(texts), tuple(parsed.differences), tuple(vocabulary.tokens[i] for i in others)
    )


def _embedded(path: Path, vocabulary: Vocabulary) -> EmbeddedTokenizer:
    """Return the tokenizer of a written file, as tinker-local loads it."""
    file = read_head(path)
    text = file.long_text(KEY)
    if text is None:
        raise VerificationError(f"{path} has no {KEY}")
    splits = bool(file.metadata.get(SPLITS_SPECIAL))
    return EmbeddedTokenizer(text, len(vocabulary.tokens), splits_special=splits)


def _explain(vocabulary: Vocabulary, parsed: _Reading, plain: _Reading) -> None:
    """Attribute what llama.cpp does otherwise to its limits, one after the other."""
    if not parsed.left and not plain.left:
        return
    oracle = copy_of(vocabulary.oracle)
    for limit in vocabulary.table.limits:
        if limit.change is not None:
            limit.change(oracle)
        for reading in (parsed, plain):
            reading.explain(limit, oracle)
    for limit in plain_limits(vocabulary):
        plain.explain(limit, oracle)


def _added_texts(vocabulary: Vocabulary) -> Iterator[str]:
    """Yield texts with the first of the added tokens, alone and among others."""
    for token in list(vocabulary.table.added.values())[:40]:
        yield token.text
        yield f"a{token.text}b{token.text}{token.text}\n{token.text} c"


@dataclass
class _Reading:
    """One way of reading the texts: special tokens as such, or as plain text."""

    vocabulary: Vocabulary
    texts: Sequence[str]
    written: Sequence[list[int]]
    plain: bool
    source: list[list[int]] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    def compare(self) -> None:
        """Tokenize with the source's tokenizer, and note the texts whose ids differ in llama.cpp."""
        self.source = self._ids(self.vocabulary.oracle, self.texts)
        self.left = [i for i, ids in enumerate(self.source) if ids != self.written[i]]

    def check_embedded(self, path: Path, embedded: EmbeddedTokenizer) -> None:
        """Raise VerificationError if the file's tokenizer.json gives other ids, or another text of ids."""
        split = True if self.plain else None
        for text, ids in zip(self.texts, self.source, strict=True):
            found = embedded.encode(text, add_special=True, split_special=split)
            if found != ids:
                raise VerificationError(
                    f"{path}: its {KEY} tokenizes {text!r} as {found}, and the source's tokenizer as {ids}"
                )
            for skips in (False, True):
                read = embedded.decode(ids, skip_special=skips)
                if read != self.vocabulary.oracle.decode(ids, skip_special_tokens=skips):
                    raise VerificationError(
                        f"{path}: its {KEY} reads {ids} as {read!r}, the source otherwise"
                    )

    def explain(self, limit: Limit, oracle: Tokenizer) -> None:
        """Attribute differences to a limit that explains them; the oracle was changed as the limit says."""
        left = [i for i in self.left if limit.applies(self.texts[i])]
        if limit.change is not None:
            ids = self._ids(oracle, [self.texts[i] for i in left])
            left = [i for i, given in zip(left, ids, strict=True) if given == self.written[i]]
        self.differences += [
            Difference(self.texts[i], self.source[i], self.written[i], limit.reason) for i in left
        ]
        self.left = [i for i in self.left if i not in left]

    def refuse_left(self, path: Path) -> None:
        """Raise VerificationError if a difference is left that no limit explains."""
        for i in self.left:
            how = ", special tokens being read as plain text," if self.plain else ""
            raise VerificationError(
                f"{path}: llama.cpp tokenizes {self.texts[i]!r}{how} as {self.written[i]}, "
                f"and the source's tokenizer as {self.source[i]}"
            )

    def _ids(self, oracle: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        usual = oracle.encode_special_tokens
        oracle.encode_special_tokens = usual or self.plain
        encodings = oracle.encode_batch_fast(list(texts))
        oracle.encode_special_tokens = usual
        return [encoding.ids for encoding in encodings]


def _check_ends(path: Path, vocabulary: Vocabulary, ends: frozenset[int]) -> None:
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
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = said[-1] if said else f"the process ended with {done.returncode}"
        raise VerificationError(f"{path}: llama.cpp fails on the vocabulary: {reason}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
