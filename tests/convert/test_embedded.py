"""A tokenizer.json from a GGUF file: what it does, and what hostile ones are refused for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convert.errors import CheckpointError
from convert.vocabularies.embedded import MOST_CHARACTERS, EmbeddedTokenizer
from tests.random_checkpoints.tokenizers import read_written

N_TOKENS = 900


def gpt2(**changed: Any) -> str:
    return json.dumps({**json.loads(read_written("gpt2").to_str()), **changed})


def model(**changed: Any) -> dict[str, Any]:
    return {**json.loads(gpt2())["model"], **changed}


def text_of(case: str | dict[str, Any]) -> str:
    return case if isinstance(case, str) else gpt2(**case)


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def sequence(*normalizers: Any) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": normalizers}


def test_texts_and_ids() -> None:
    tokenizer = EmbeddedTokenizer(gpt2(), N_TOKENS)
    ids = tokenizer.encode("the <|endoftext|>", add_special=True)
    assert ids[-1] == 600
    assert tokenizer.decode(ids, skip_special=False) == "the <|endoftext|>"
    assert tokenizer.decode(ids, skip_special=True) == "the "
    assert 600 not in tokenizer.encode("the <|endoftext|>", add_special=True, split_special=True)
    assert tokenizer.token(600) == "<|endoftext|>"
    assert tokenizer.token(800) is None
    assert tokenizer.decode([800], skip_special=False) == ""


def test_special_tokens_that_are_split() -> None:
    tokenizer = EmbeddedTokenizer(gpt2(), N_TOKENS, splits_special=True)
    assert 600 not in tokenizer.encode("<|endoftext|>", add_special=True)
    assert tokenizer.encode("<|endoftext|>", add_special=True, split_special=False) == [600]
    assert tokenizer.decode([600], skip_special=True) == ""


def test_a_long_text_is_the_same_text() -> None:
    tokenizer = EmbeddedTokenizer(gpt2(), N_TOKENS)
    line = "the old man.\n"
    ids = tokenizer.encode(line, add_special=False)
    assert tokenizer.encode(1000 * line, add_special=False) == 1000 * ids


def test_what_is_set_for_training_does_not_act() -> None:
    truncation = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 5}
    padding = {
        "strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "x",
    }  # fmt: skip
    plain = EmbeddedTokenizer(gpt2(), N_TOKENS).encode("the old man", add_special=True)
    changed = EmbeddedTokenizer(gpt2(truncation=truncation, padding=padding), N_TOKENS)
    assert changed.encode("the old man", add_special=True) == plain


REFUSED: dict[str, tuple[str | dict[str, Any], str]] = {
    "nothing": ("", "fails: EOF"),
    "no table": ("[]", "fails"),
    "nested without end": ("[" * 100_000, "fails"),
    "no model": ({"model": None}, "fails"),
    "a bomb": ({"normalizer": sequence(*[replace("a", "a" * 99)] * 3)}, "970,299 times as long"),
    "bytes of bytes": ({"normalizer": sequence(*[{"type": "ByteLevel"}] * 30)}, "times as long"),
    "a prefix": ({"normalizer": {"type": "Prepend", "prepend": "x" * 1000}}, "1,000 times as long"),
    "a step that panics": ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "FixedLength"),
    "a strange decoder": (
        {"decoder": {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True}}, "CTC",
    ),
    "a pattern without end": ({"pre_tokenizer": split("a|" * 6000 + "b")}, "a pattern of more than"),
    "a pattern that is none": ({"pre_tokenizer": split("(")}, "fails"),
    "steps without end": ({"normalizer": sequence(*[{"type": "NFC"}] * 100)}, "of 101 steps"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_file(case: str) -> None:
    file, message = REFUSED[case]
    with pytest.raises(CheckpointError, match=message):
        EmbeddedTokenizer(text_of(file), N_TOKENS)


def test_a_model_that_is_not_this_one() -> None:
    with pytest.raises(CheckpointError, match="has 601 tokens, and the model 10"):
        EmbeddedTokenizer(gpt2(), 10)
    with pytest.raises(CheckpointError, match=r"dropout 0\.5"):
        EmbeddedTokenizer(gpt2(model=model(dropout=0.5)), N_TOKENS)


def template(*single: Any) -> dict[str, Any]:
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}


_TOKEN = {"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
PANICS: dict[str, tuple[dict[str, Any], str]] = {
    "a pattern that tries for ever": ({"pre_tokenizer": split("(a+)+$")}, "a" * 28 + "b"),
    "nothing replaced": ({"normalizer": replace("", "xx")}, "a" * 29),
    "a template with a token that is none": ({"post_processor": template(*_TOKEN)}, "a"),
    "a template of a second text": (
        {"post_processor": template({"Sequence": {"id": "B", "type_id": 0}})}, "a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PANICS)
def test_a_panic_is_an_error(case: str) -> None:
    file, text = PANICS[case]
    tokenizer = EmbeddedTokenizer(gpt2(**file), N_TOKENS)
    with pytest.raises(CheckpointError, match=r"tokenizer\.huggingface\.json"):
        tokenizer.encode(text, add_special=True)


def test_an_absurd_id() -> None:
    vocabulary = {**model()["vocab"], "Z": 4_000_000_001}
    tokenizer = EmbeddedTokenizer(gpt2(model=model(vocab=vocabulary)), N_TOKENS)
    with pytest.raises(CheckpointError, match="gives the id 4000000001"):
        tokenizer.encode("Z", add_special=True)


def test_too_long_a_text() -> None:
    with pytest.raises(CheckpointError, match="encode it in parts"):
        EmbeddedTokenizer(gpt2(), N_TOKENS).encode("x" * (MOST_CHARACTERS + 1), add_special=True)


def test_a_long_text_stays_in_the_file(tmp_path: Path) -> None:
    import gguf

    from convert.gguf.file import LongText, read_head

    writer = gguf.GGUFWriter(tmp_path / "long.gguf", "llama")
    writer.add_string("long", "é" * 700_000)
    writer.add_string("short", "é")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    head = read_head(tmp_path / "long.gguf")
    assert isinstance(head.metadata["long"], LongText)
    assert head.text("long") is None
    assert head.long_text("long") == "é" * 700_000
    assert head.long_text("short") == head.text("short") == "é"
    assert head.long_text("none") is None
