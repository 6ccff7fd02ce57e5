# ruff: noqa: E501 - tables of bad cases
"""Tokenizer files that say nonsense: each is refused, with the file and the fact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convert.errors import CheckpointError, UnsupportedError
from convert.vocabularies.vocabulary import read_vocabulary
from tests.convert.vocabulary_files import Json, change
from tests.random_checkpoints import sentencepiece
from tests.random_checkpoints.tokenizers import write_tokenizer


def in_model(**values: Any) -> Callable[[Json], None]:
    return lambda file: file["model"].update(values)


def in_file(**values: Any) -> Callable[[Json], None]:
    return lambda file: file.update(values)


def in_vocab(**values: Any) -> Callable[[Json], None]:
    return lambda file: file["model"]["vocab"].update(values)


def added(**values: Any) -> Callable[[Json], None]:
    token = {"id": 601, "content": "<new>", "special": True, "normalized": False}
    return lambda file: file["added_tokens"].append({**token, **values})


BAD_JSON: dict[str, tuple[Callable[[Json], None], str]] = {
    "no model": (in_file(model=None), "model must be a table"),
    "another model": (in_model(type="WordPiece"), "only BPE"),
    "unigram": (in_model(type="Unigram"), "only BPE"),
    "a vocabulary in a list": (in_model(vocab=[["a", 0]]), "vocab must be a table"),
    "an id that is text": (in_vocab(zz="7"), "'zz' has the id '7'"),
    "an id that is true": (in_vocab(zz=True), "'zz' has the id True"),
    "a negative id": (in_vocab(zz=-1), "'zz' has the id -1"),
    "an absurd id": (in_vocab(zz=10**12), r"'zz' has the id 1000000000000.*ids below 620"),
    "an id twice": (in_vocab(zz=5), "both have the id 5"),
    "a lone surrogate": (in_vocab(**{"z\ud800": 610}), "cannot be written in UTF-8|not understand"),
    "a null character": (in_vocab(**{"z\x00": 610}), "null character"),
    "no merges": (in_model(merges=None), "merges must be a list"),
    "a merge of three": (in_model(merges=[["a", "b", "c"]]), "no pair"),
    "a merge of one": (in_model(merges=["ab"]), "no pair"),
    "a merge of numbers": (in_model(merges=[[1, 2]]), "no pair"),
    "a merge of strangers": (in_model(merges=[["a", "zz"]]), "needs 'zz'"),
    "a merge that makes nothing": (in_model(merges=[["~", "~"], ["~~", "!"]]), "no token"),
    "dropout": (in_model(dropout=0.1), "dropout is 0.1"),
    "a suffix": (in_model(end_of_word_suffix="</w>"), "end_of_word_suffix"),
    "a regex that is none": (
        in_file(pre_tokenizer={"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]}),
        "does not understand",
    ),
    "a sequence of nothing": (in_file(pre_tokenizer={"type": "Sequence"}), "no list of pretokenizers"),
    "a pre-tokenizer that is text": (in_file(pre_tokenizer="ByteLevel"), "a table is needed"),
    "neither kind": (in_file(pre_tokenizer=None), "neither byte-level nor"),
    "half a post-processor": (in_file(post_processor={"type": "RobertaProcessing"}), "tokenizers library fails"),
    "half a template": (in_file(post_processor={"type": "TemplateProcessing"}), "tokenizers library fails"),
    "a template with a token that is none": (
        in_file(post_processor={"type": "TemplateProcessing", "special_tokens": {}, "pair": [],
                                "single": [{"SpecialToken": {"id": "X", "type_id": 0}},
                                           {"Sequence": {"id": "A", "type_id": 0}}]}),
        "post_processor",
    ),
    "added tokens in a table": (in_file(added_tokens={"a": 1}), "added_tokens must be a list"),
    "an added token that is text": (in_file(added_tokens=["<a>"]), "a table is needed"),
    "an added token without text": (added(content=""), "has the content ''"),
    "an added token without id": (added(id=None), "has the id None"),
    "an added token with two ids": (added(content="<|endoftext|>"), "has the id 600 and"),
    "an added token on another": (added(id=5), "the id 5 is"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_JSON)
def test_a_bad_tokenizer_json(tmp_path: Path, case: str) -> None:
    write_tokenizer(tmp_path, "gpt2")
    edit, message = BAD_JSON[case]
    change(tmp_path / "tokenizer.json", edit)
    with pytest.raises((CheckpointError, UnsupportedError), match=message) as caught:
        read_vocabulary(tmp_path, {}, 620)
    assert "tokenizer.json" in str(caught.value)


BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "no JSON": ("tokenizer.json", b"{", "is not JSON"),
    "no UTF-8": ("tokenizer.json", b'{"\xff": 1}', "is not JSON"),
    "nested too deeply": ("tokenizer.json", b"[" * 200_000, "is not JSON"),
    "a list": ("tokenizer.json", b"[]", "holds a list"),
    "a config that is a list": ("tokenizer_config.json", b"[]", "holds a list"),
    "an end that is no token": ("tokenizer_config.json", b'{"eos_token": "<none>"}', "eos_token is '<none>'"),
    "an end that is a list": ("tokenizer_config.json", b'{"eos_token": []}', r"eos_token is \[\]"),
    "a decoder that is a list": ("tokenizer_config.json", b'{"added_tokens_decoder": [1]}', "must be a table"),
    "a decoder without ids": ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {}}}', "'x' in added"),
    "an end beyond": ("generation_config.json", b'{"eos_token_id": 100000}', "eos_token_id is 100000"),
    "an end that is text": ("generation_config.json", b'{"eos_token_id": ["2"]}', "eos_token_id is '2'"),
    "no template": ("chat_template.jinja", b"\xff", r"chat_template\.jinja cannot be read"),
    "a template of numbers": ("tokenizer_config.json", b'{"eos_token": "<|endoftext|>", "chat_template": 3}',
                              "neither a text nor"),
    "a template without a name": (
        "tokenizer_config.json", b'{"eos_token": "<|endoftext|>", "chat_template": [{"template": ""}]}',
        "neither a text nor"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_around_it(tmp_path: Path, case: str) -> None:
    write_tokenizer(tmp_path, "gpt2")
    name, data, message = BAD_FILES[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_vocabulary(tmp_path, {}, 620)
    assert name in str(caught.value)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        read_vocabulary(tmp_path, {}, 10)


def test_no_end(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "gpt2")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match="no file names the eos_token"):
        read_vocabulary(tmp_path, {}, 620)


PIECES = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("a", -1.0, 1)]
GOOD = sentencepiece.model(PIECES)
BAD_MODELS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no pieces"),
    "text": (b"hello there, this is text", "no SentencePiece model"),
    "truncated": (GOOD[:-3], "no SentencePiece model"),
    "truncated in a piece": (GOOD[:9], "no SentencePiece model"),
    "a length beyond the file": (b"\x0a\xff\xff\xff\xff\x0f", "bytes, of which 0 are there"),
    "a number without end": (b"\x0a" + b"\xff" * 12, "has no end"),
    "a field 0": (b"\x00\x01", "the number 0"),
    "a group": (b"\x0b", "of the kind 3"),
    "a kind that is none": (sentencepiece.piece("a", 0.0, 9), "9 is not a valid"),
    "a piece that is a number": (b"\x08\x01", "where text or a message should"),
    "a piece without UTF-8": (sentencepiece.message(1, sentencepiece.message(1, b"\xff")), "utf-8"),
    "unigram": (sentencepiece.model(PIECES, model_type=1), "the model is Unigram"),
    "extra spaces": (sentencepiece.model(PIECES, remove_extra_whitespaces=True), "removes extra spaces"),
    "a piece twice": (sentencepiece.model([*PIECES, PIECES[-1]]), "'a' has two ids"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_tokenizer_model(tmp_path: Path, case: str) -> None:
    data, message = BAD_MODELS[case]
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises((CheckpointError, UnsupportedError), match=message) as caught:
        read_vocabulary(tmp_path, {"eos_token_id": 2}, 620)
    assert "tokenizer.model" in str(caught.value)


def test_a_tokenizer_model_cut_anywhere_is_refused_or_read(tmp_path: Path) -> None:
    for size in range(len(GOOD)):
        (tmp_path / "tokenizer.model").write_bytes(GOOD[:size])
        with pytest.raises((CheckpointError, UnsupportedError), match=r"tokenizer\.model"):
            read_vocabulary(tmp_path, {"eos_token_id": 2}, 620)


BAD_RANKS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "has no tokens"),
    "no base64": (b"!!! 0\n", "line 1 is no token and rank"),
    "no rank": (b"IQ==\n", "line 1 is no token and rank"),
    "a rank that is text": (b"IQ== x\n", "line 1 is no token and rank"),
    "a hole": (b"IQ== 0\nIg== 2\n", "line 2 .*count up"),
    "a token twice": (b"IQ== 0\nIQ== 1\n", "line 2 .*count up"),
    "bytes without a token": (b"IQ== 0\n", "no tokens for the bytes"),
}


@pytest.mark.parametrize("case", BAD_RANKS)
def test_a_bad_tiktoken_model(tmp_path: Path, case: str) -> None:
    write_tokenizer(tmp_path, "kimi-k2")
    data, message = BAD_RANKS[case]
    (tmp_path / "tiktoken.model").write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_vocabulary(tmp_path, {}, 620)
    assert "tiktoken.model" in str(caught.value)


def test_a_tiktoken_model_that_is_not_kimis(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "kimi-k2")
    change(tmp_path / "tokenizer_config.json", in_file(tokenizer_class="QWenTokenizer"))
    with pytest.raises(UnsupportedError, match="only that of Kimi is known"):
        read_vocabulary(tmp_path, {}, 620)
