"""The tokenizer in a GGUF file: a whole tokenizer.json, which the ``tokenizers`` library runs.

The key is the format's own (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Such a file may
come from strangers, and the library trusts what it loads. So the parts that could take all memory, or that
answer with a panic, are refused first. What is left of the library's panics becomes an error.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from convert.errors import CheckpointError

KEY = "tokenizer.huggingface.json"
SPLITS_SPECIAL = "tokenizer.huggingface.split_special_tokens"
"""Ours: whether special tokens in a text are read as plain text, which no tokenizer.json can say."""

MOST_BYTES = 1 << 26
"""Of a tokenizer.json, written without spaces; one of 262,144 tokens takes 20 MB."""
MOST_CHARACTERS = 4_000_000
"""Of a text that is tokenized at once. The library takes some 450 bytes for each, and a microsecond."""

_WITHOUT_GIL = 10_000
"""From so many characters on the library works without Python's lock, on threads of its own."""
_LARGEST_GROWTH = 64
_MOST_STEPS, _LONGEST_PATTERN = 64, 10_000
_PARTS = {
    "normalizer": ("Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt",
                   "Replace", "Prepend", "ByteLevel", "BertNormalizer", "Precompiled"),
    "pre_tokenizer": ("Sequence", "ByteLevel", "Split", "Digits", "Metaspace", "Whitespace", "Punctuation",
                      "WhitespaceSplit", "BertPreTokenizer", "CharDelimiterSplit", "UnicodeScripts"),
    "post_processor": ("Sequence", "ByteLevel", "TemplateProcessing", "BertProcessing",
                       "RobertaProcessing"),
    "decoder": ("Sequence", "ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace",
                "WordPiece", "BPEDecoder"),
}  # fmt: skip
"""The steps that are run. Others of the library panic at some settings, or split no text of a model."""
_T = TypeVar("_T")


class EmbeddedTokenizer:
    """A tokenizer.json, run by the ``tokenizers`` library. Safe to use from many threads.

    Args:
        text: the tokenizer.json.
        n_tokens: the model's number of ids; the tokenizer must give no other.
        splits_special: whether special tokens in a text are read as plain text.
        where: the file's name, for messages.

    Raises:
        CheckpointError: it is no tokenizer.json, or another model's, or could take all memory.
    """

    def __init__(self, text: str, n_tokens: int, *, splits_special: bool = False, where: str = KEY) -> None:
        if len(text) > MOST_BYTES:
            raise CheckpointError(f"{where} has more than {MOST_BYTES:,} characters")
        self._text, self._n_tokens, self._where = text, n_tokens, where
        self._splits_special = splits_special
        self._by_reading = {splits_special: self._load(splits_special)}

    def encode(self, text: str, *, add_special: bool, split_special: bool | None = None) -> list[int]:
        """Return the ids of a text.

        Args:
            text: any text.
            add_special: put around it what the post-processor says, such as BOS.
            split_special: read special tokens in the text as plain text; None for the file's own way.

        Raises:
            CheckpointError: the text is too long or no valid Unicode, or the library fails on it.
        """
        _check_length(text)
        tokenizer = self._reading(self._splits_special if split_special is None else split_special)
        if len(text) < _WITHOUT_GIL:
            encoding = ask(self._where, lambda: tokenizer.encode(text, add_special_tokens=add_special))
        else:
            batch = ask(
                self._where, lambda: tokenizer.encode_batch_fast([text], add_special_tokens=add_special)
            )
            encoding = batch[0]
        ids: list[int] = encoding.ids
        if ids and max(ids) >= self._n_tokens:
            raise CheckpointError(f"{self._where} gives the id {max(ids)}; ids are below {self._n_tokens}")
        return ids

    def offsets(self, text: str, *, split_special: bool | None = None) -> list[tuple[int, int]]:
        """Return the characters that each token of ``encode`` stands for, without what is put around them.

        Raises:
            CheckpointError: as in ``encode``.
        """
        _check_length(text)
        tokenizer = self._reading(self._splits_special if split_special is None else split_special)
        encoding = ask(self._where, lambda: tokenizer.encode(text, add_special_tokens=False))
        return list(encoding.offsets)

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Return the text of ids; bytes that are no UTF-8 become U+FFFD. An id without a token is nothing.

        Raises:
            CheckpointError: the library fails on them.
        """
        tokenizer = self._by_reading[self._splits_special]
        return ask(self._where, lambda: str(tokenizer.decode(ids, skip_special_tokens=skip_special)))

    def token(self, token_id: int) -> str | None:
        """Return the text of an id as the vocabulary writes it, None if there is none."""
        text: str | None = self._by_reading[self._splits_special].id_to_token(token_id)
        return text

    def _reading(self, splits_special: bool) -> Any:
        """Return the tokenizer for a way of reading; a library's tokenizer has one for all its users."""
        if splits_special not in self._by_reading:  # two threads may both load it, and one be forgotten
            self._by_reading[splits_special] = self._load(splits_special)
        return self._by_reading[splits_special]

    def _load(self, splits_special: bool) -> Any:
        from tokenizers import Tokenizer  # takes 50 ms, and most files have no such key

        tokenizer = ask(self._where, lambda: Tokenizer.from_str(self._text))
        for problem in _problems(tokenizer, self._n_tokens):
            raise CheckpointError(f"{self._where} {problem}")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = splits_special
        return tokenizer


def ask(where: str, work: Callable[[], _T]) -> _T:
    """Return what the library answers.

    Raises:
        CheckpointError: it fails or panics, which is a BaseException; ``where`` begins the message.
    """
    try:
        return work()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"{where}: the tokenizers library fails: {error}") from error


def _check_length(text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise CheckpointError(
            f"the text has {len(text):,} characters, and {MOST_CHARACTERS:,} can be tokenized at once; "
            "encode it in parts"
        )


def _problems(tokenizer: Any, n_tokens: int) -> Iterator[str]:
    """Yield what is wrong with a tokenizer of the library, as message fragments: "<key> <problem>"."""
    if (n := tokenizer.get_vocab_size()) > n_tokens:
        yield f"has {n:,} tokens, and the model {n_tokens:,}: it is another model's"
    if getattr(tokenizer.model, "dropout", None):
        yield f"drops merges by chance (dropout {tokenizer.model.dropout}): ids would differ each time"
    for name, known in _PARTS.items():
        part = getattr(tokenizer, name)
        steps = [] if part is None else list(_steps(json.loads(part.__getstate__())))
        if len(steps) > _MOST_STEPS:
            yield f"has a {name} of {len(steps)} steps, and at most {_MOST_STEPS} are run"
        for step in steps:
            if step.get("type") not in known:
                yield f"has a {name} with the step {step.get('type')}, which is not run"
            if len(str(step.get("pattern"))) > _LONGEST_PATTERN:
                yield f"has a {name} with a pattern of more than {_LONGEST_PATTERN:,} characters"
        if (growth := math.prod(map(_growth, steps))) > _LARGEST_GROWTH:
            yield f"has a {name} that could make a text {growth:,} times as long"


def _steps(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a pipeline, those of a Sequence one by one."""
    yield part
    for members in ("normalizers", "pretokenizers", "processors", "decoders"):
        for inner in part.get(members, ()):
            yield from _steps(inner)


def _growth(step: Mapping[str, Any]) -> int:
    """Return how many times as long a step can make a text; Unicode's forms are not counted twice."""
    match step.get("type"):
        case "ByteLevel":
            return 2
        case "Replace":
            return max(1, len(step["content"]))
        case "Prepend":
            return max(1, len(step["prepend"]))  # before each stretch between special tokens
        case "Precompiled":
            return max(map(len, base64.b64decode(step["precompiled_charsmap"] or "").split(b"\0")))
    return 1


__all__ = ["KEY", "MOST_CHARACTERS", "SPLITS_SPECIAL", "EmbeddedTokenizer", "ask"]
