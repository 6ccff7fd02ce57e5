"""Tokenizers trained on the spot and saved as the real families save them.

``write_tokenizer(directory, "llama3")`` leaves a tokenizer.json, tokenizer_config.json, ... whose pipeline
(normalizer, split, model, added tokens, template) is that of the published family; only the vocabulary is
small and our own. ``tokenizer.model`` and ``tiktoken.model`` files come from the same merges.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.random_checkpoints.kinds import KINDS, Kind
from tests.random_checkpoints.sentencepiece import write_sentencepiece
from tests.random_checkpoints.words import sentences


@dataclass(frozen=True)
class Written:
    """What was written: the number of ids and the special ones, for a model's config."""

    n_tokens: int
    bos_token_id: int | None
    eos_token_id: int
    pad_token_id: int | None


def write_tokenizer(
    directory: Path, kind: str, vocab_size: int = 600, *, files: Sequence[str] | None = None
) -> Written:
    """Train a tokenizer and write its files into a directory.

    Args:
        kind: a key of ``KINDS``.
        vocab_size: of the trained part; added tokens that it lacks come on top.
        files: of "tokenizer.json", "tokenizer.model" and "tiktoken.model", those to write; None for what
            the family is published with.
    """
    directory.mkdir(parents=True, exist_ok=True)
    recipe = KINDS[kind]
    tokenizer = Tokenizer.from_str(_trained(kind, vocab_size))
    if files is None:
        files = ("tiktoken.model",) if kind == "kimi-k2" else ("tokenizer.json",)
    if "tokenizer.json" in files:
        tokenizer.save(str(directory / "tokenizer.json"))
    if "tokenizer.model" in files:
        write_sentencepiece(directory / "tokenizer.model", tokenizer, recipe.sentencepiece != "never")
    if "tiktoken.model" in files:
        _write_tiktoken(directory / "tiktoken.model", tokenizer)
    _write_configs(directory, recipe, tokenizer)
    ids = {
        name: None if text is None else tokenizer.token_to_id(text) for name, text in _named(recipe).items()
    }
    return Written(tokenizer.get_vocab_size(), ids["bos_token"], ids["eos_token"], ids["pad_token"])


def read_written(kind: str, vocab_size: int = 600) -> Tokenizer:
    """Return the tokenizer that ``write_tokenizer`` writes, as the ``tokenizers`` library has it."""
    return Tokenizer.from_str(_trained(kind, vocab_size))


@cache
def _trained(kind: str, vocab_size: int) -> str:
    recipe = KINDS[kind]
    make = _byte_level if recipe.sentencepiece is None else _sentencepiece
    tokenizer = make(recipe, vocab_size)
    tokenizer.add_special_tokens([_added(text, recipe, special=True) for text in recipe.special])
    tokenizer.add_tokens([_added(text, recipe, special=False) for text in recipe.added])
    if recipe.adds_bos:
        bos = str(recipe.bos)
        template = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos}:1 $B:1",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
        byte_level = recipe.sentencepiece is None
        last: list[Any] = [processors.ByteLevel(trim_offsets=False)] if byte_level else []
        tokenizer.post_processor = processors.Sequence([*last, template]) if last else template
    elif recipe.sentencepiece is None:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer.to_str()


def _added(text: str, recipe: Kind, *, special: bool) -> AddedToken:
    strips = text in recipe.strips
    left = strips and recipe.sentencepiece is None  # Phi-4 strips on both sides, Phi-3 on the right
    return AddedToken(text, special=special, normalized=False, rstrip=strips, lstrip=left)


def _byte_level(recipe: Kind, vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if recipe.normalizer is not None:
        tokenizer.normalizer = recipe.normalizer
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not recipe.splits)
    splits: list[Any] = [pre_tokenizers.Split(Regex(split), "isolated") for split in recipe.splits]
    if recipe.digits:
        splits.append(pre_tokenizers.Digits(individual_digits=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level]) if splits else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer = _train(tokenizer, recipe, vocab_size, pre_tokenizers.ByteLevel.alphabet())
    if recipe.ignore_merges:
        tokenizer.model.ignore_merges = True
    return tokenizer


def _sentencepiece(recipe: Kind, vocab_size: int) -> Tokenizer:
    """BPE over characters, bytes for those it does not know; spaces are written ▁."""
    tokenizer = Tokenizer(models.BPE(unk_token=recipe.unk, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex("▁+(?=▁)|▁?[^▁]+|▁+"), "isolated"
    )  # ▁ starts a piece
    tokenizer = _train(tokenizer, recipe, vocab_size, [])
    tokenizer.pre_tokenizer = None
    replace = normalizers.Replace(" ", "▁")
    if recipe.sentencepiece == "first":
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif recipe.sentencepiece == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    else:
        tokenizer.normalizer = replace
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    parts: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if recipe.sentencepiece != "never":
        parts.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer


def _train(tokenizer: Tokenizer, recipe: Kind, vocab_size: int, alphabet: list[str]) -> Tokenizer:
    """Return the tokenizer with a vocabulary, in which the trainer's pieces are no added tokens."""
    pieces = list(recipe.special if recipe.first else ())
    if recipe.sentencepiece is not None:
        pieces += [f"<0x{byte:02X}>" for byte in range(256)]
        vocab_size += 256
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=pieces, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    return Tokenizer.from_str(json.dumps({**json.loads(tokenizer.to_str()), "added_tokens": []}))


def _named(recipe: Kind) -> dict[str, str | None]:
    return {
        "bos_token": recipe.bos,
        "eos_token": recipe.eos,
        "pad_token": recipe.pad,
        "unk_token": recipe.unk,
    }


def _write_configs(directory: Path, recipe: Kind, tokenizer: Tokenizer) -> None:
    added = {
        str(token_id): {
            name: getattr(token, name)
            for name in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        }
        for token_id, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    named = {name: text for name, text in _named(recipe).items() if text is not None}
    config = {
        "added_tokens_decoder": added,
        **named,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "tokenizer_class": recipe.tokenizer_class,
        **recipe.config,
    }
    _write_json(directory / "tokenizer_config.json", config)
    _write_json(directory / "special_tokens_map.json", named)
    ids = [tokenizer.token_to_id(text) for text in recipe.generation_eos or (recipe.eos,)]
    _write_json(directory / "generation_config.json", {"eos_token_id": ids if len(ids) > 1 else ids[0]})
    if recipe.chat_template is not None:
        (directory / "chat_template.jinja").write_text(recipe.chat_template)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False))


def _write_tiktoken(path: Path, tokenizer: Tokenizer) -> None:
    """Write the ranks: a line for each token, its bytes in base64 and its rank."""
    ranks = json.loads(tokenizer.to_str())["model"]["vocab"]
    values = {character: byte for byte, character in byte_characters().items()}
    lines = [
        base64.b64encode(bytes(values[character] for character in token)) + b" %d\n" % rank
        for token, rank in sorted(ranks.items(), key=lambda pair: pair[1])
    ]
    path.write_bytes(b"".join(lines))


def byte_characters() -> dict[int, str]:
    """Return the character that GPT-2's vocabulary writes for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
