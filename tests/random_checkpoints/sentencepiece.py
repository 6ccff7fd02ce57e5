"""``tokenizer.model``: a SentencePiece model, written byte by byte as its protobuf schema says.

Schema: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tokenizers import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def real(field: int, value: float) -> bytes:
    return varint(field << 3 | 5) + struct.pack("<f", value)


def message(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def piece(text: str, score: float, kind: int) -> bytes:
    """One SentencePiece message of the model."""
    normal = b"" if kind == NORMAL else number(3, kind)  # the default is left out, as protobuf does
    return message(1, message(1, text.encode()) + real(2, score) + normal)


def model(
    pieces: list[tuple[str, float, int]],
    *,
    add_dummy_prefix: bool = True,
    remove_extra_whitespaces: bool = False,
    model_type: int = BPE,
    name: str = "identity",
    ids: tuple[int, int, int, int] = (0, 1, 2, -1),
) -> bytes:
    """A whole model; ``ids`` are those of unk, bos, eos and pad, -1 for none."""
    unk, bos, eos, pad = (value & 0xFFFFFFFFFFFFFFFF for value in ids)
    trainer = number(3, model_type) + number(35, 1)
    trainer += number(40, unk) + number(41, bos) + number(42, eos) + number(43, pad)
    normalizer = message(1, name.encode()) + number(3, add_dummy_prefix)
    normalizer += number(4, remove_extra_whitespaces) + number(5, 1)
    body = b"".join(piece(*entry) for entry in pieces)
    return body + message(2, trainer) + message(3, normalizer)


def write_sentencepiece(path: Path, tokenizer: Tokenizer, add_dummy_prefix: bool) -> None:
    """Write the model that has the tokenizer's pieces; a merge's score is the negative of its rank."""
    parts = json.loads(tokenizer.to_str())["model"]
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(parts["merges"]):
        ranks.setdefault(left + right, rank)
    specials = {t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special}
    pieces = []
    for text, _ in sorted(parts["vocab"].items(), key=lambda pair: pair[1]):
        if text == parts["unk_token"]:
            pieces.append((text, 0.0, UNKNOWN))
        elif text in specials:
            pieces.append((text, 0.0, CONTROL))
        elif text.startswith("<0x"):
            pieces.append((text, 0.0, BYTE))
        else:
            pieces.append((text, -float(ranks.get(text, len(ranks))), NORMAL))
    names = ("<unk>", "<s>", "</s>", "<pad>")
    if "<bos>" in specials:
        names = ("<unk>", "<bos>", "<eos>", "<pad>")
    ids = tuple(parts["vocab"].get(name, -1) for name in names)
    path.write_bytes(model(pieces, add_dummy_prefix=add_dummy_prefix, ids=ids))  # type: ignore[arg-type]
