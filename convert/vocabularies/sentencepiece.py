"""``tokenizer.model``: a SentencePiece model, read without its library.

Schema: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from gguf import TokenType

from convert.errors import CheckpointError, UnsupportedError
from convert.vocabularies.token_table import AddedToken, TokenTable

PIECES, TRAINER, NORMALIZER = 1, 2, 3
TEXT, SCORE, KIND = 1, 2, 3
MODEL_TYPE, SUFFIXES, BYTE_FALLBACK, UNK = 3, 24, 35, 40
CHARSMAP, DUMMY_PREFIX, EXTRA_SPACES, ESCAPES = 2, 3, 4, 5
BPE = 2
MODEL_TYPES = {1: "Unigram", 2: "BPE", 3: "Word", 4: "Char"}

Value = int | float | bytes


def read_sentencepiece(path: Path) -> TokenTable:
    """Read a tokenizer.model.

    Raises:
        CheckpointError: the file is malformed.
        UnsupportedError: llama.cpp cannot do what it says.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return _read(path, data)
    except ValueError as error:
        raise CheckpointError(f"{path} is no SentencePiece model: {error}") from error


def _read(path: Path, data: bytes) -> TokenTable:
    table = TokenTable(path, "llama", "default", {})
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for field, value in _fields(data):
        if field in (PIECES, TRAINER, NORMALIZER):
            message = dict(_fields(_bytes(value)))
            if field == PIECES:
                _add_piece(table, message)
            elif field == TRAINER:
                trainer = message
            else:
                normalizer = message
    if not table.texts:
        raise ValueError("it has no pieces")
    _refuse_settings(path, trainer, normalizer)
    table.unk = int(trainer.get(UNK, 0))
    table.space_prefix = bool(normalizer.get(DUMMY_PREFIX, 1))
    return table


def _add_piece(table: TokenTable, message: dict[int, Value]) -> None:
    token_id = len(table.texts)
    text = _bytes(message.get(TEXT, b"")).decode()
    kind = TokenType(int(message.get(KIND, TokenType.NORMAL)))
    table.texts[token_id] = text
    table.scores[token_id] = float(message.get(SCORE, 0.0))
    if kind in (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN):
        table.added[token_id] = AddedToken(text, is_special=kind != TokenType.USER_DEFINED)
    if kind != TokenType.NORMAL:
        table.kinds[token_id] = kind


def _refuse_settings(path: Path, trainer: dict[int, Value], normalizer: dict[int, Value]) -> None:
    kind = int(trainer.get(MODEL_TYPE, 1))
    if kind != BPE:
        raise UnsupportedError(
            f"{path}: the model is {MODEL_TYPES.get(kind, kind)}; only BPE can be converted"
        )
    if not trainer.get(BYTE_FALLBACK):
        raise UnsupportedError(
            f"{path}: it does not fall back on bytes; llama.cpp ends the process at an unknown character"
        )
    if trainer.get(SUFFIXES) or not normalizer.get(ESCAPES, 1):
        raise UnsupportedError(f"{path}: its way of writing spaces has no equal in llama.cpp")
    if normalizer.get(EXTRA_SPACES, 1):
        raise UnsupportedError(f"{path}: it removes extra spaces, and llama.cpp does not")
    if normalizer.get(CHARSMAP):
        raise UnsupportedError(f"{path}: it normalizes texts, and llama.cpp does not")


# -- protobuf's wire format (https://protobuf.dev/programming-guides/encoding) ---------------------


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield the fields of a message: their numbers and values. Raises ValueError where it is malformed."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if field == 0:
            raise ValueError(f"a field at byte {at} has the number 0")
        if wire == 0:
            value, at = _varint(data, at)
            yield field, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field at byte {at} is of the kind {wire}, which is none")
        if size > len(data) - at:
            raise ValueError(f"a field at byte {at} has {size} bytes, of which {len(data) - at} are there")
        part = data[at : at + size]
        at += size
        yield field, part if wire == 2 else struct.unpack("<d" if wire == 1 else "<f", part)[0]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and where the next byte is."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends in the middle of a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"the number before byte {at} has no end")


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"{value!r} stands where text or a message should")
    return value
