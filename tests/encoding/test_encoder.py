"""Texts to ids with the arguments of transformers; the right values are those of 4.57 and 5.24."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from tests.random_model import Shape, write_random_model
from tinker_local import BadRequestError, Tokenizer
from tinker_local.encoding.options import REFUSED
from tinker_local.llama.model import load_model


class Padding(enum.StrEnum):
    """As transformers has it, whose enumerations callers may pass."""

    MAX_LENGTH = "max_length"


@pytest.fixture(scope="module")
def adding(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A vocabulary that adds BOS."""
    path = tmp_path_factory.mktemp("adding") / "m.gguf"
    named = {"bos": 256, "eos": 258, "padding": 259}
    return Tokenizer(
        load_model(write_random_model(path, shape=Shape(n_layer=1), named=named, adds_bos=True), 0)
    )


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({}, [256, 257, 220, 66]),
        ({"add_special_tokens": False}, [257, 220, 66]),
        ({"max_length": 3}, [256, 257, 220]),
        ({"truncation": True, "max_length": 3}, [256, 257, 220]),
        ({"truncation": "only_first", "max_length": 1}, [256]),
        ({"truncation": "longest_first", "max_length": 2, "add_special_tokens": False}, [257, 220]),
        ({"truncation": False, "max_length": 3}, [256, 257, 220, 66]),
        ({"truncation": "do_not_truncate", "max_length": 3}, [256, 257, 220, 66]),
        ({"truncation": True, "max_length": 9}, [256, 257, 220, 66]),
        ({"truncation": True}, [256, 257, 220, 66]),
        ({"padding": "max_length", "max_length": 6}, [256, 257, 220, 66, 259, 259]),
        ({"padding": "max_length", "max_length": 6, "padding_side": "left"}, [259, 259, 256, 257, 220, 66]),
        ({"padding": "max_length", "max_length": 2}, [256, 257, 220, 66]),
        ({"padding": "max_length", "max_length": 2, "truncation": True}, [256, 257]),
        ({"padding": True, "pad_to_multiple_of": 3}, [256, 257, 220, 66, 259, 259]),
        ({"padding": "longest"}, [256, 257, 220, 66]),
        ({"padding": Padding.MAX_LENGTH, "max_length": 5}, [256, 257, 220, 66, 259]),
        ({"padding": "do_not_pad", "stride": 0, "text_pair": None, "verbose": False}, [256, 257, 220, 66]),
    ],
)  # fmt: skip
def test_encode(adding: Tokenizer, options: dict[str, Any], ids: list[int]) -> None:
    assert adding.encode("ab c", **options) == ids
    assert adding("ab c", **options).input_ids == ids


def test_sides(adding: Tokenizer) -> None:
    assert (adding.padding_side, adding.truncation_side) == ("right", "right")
    try:
        adding.truncation_side, adding.padding_side = "left", "left"
        assert adding.encode("ab c", max_length=2) == [256, 66]
        assert adding(["a", "b c"], padding=True).input_ids == [[259, 259, 256, 64], [256, 65, 220, 66]]
        adding.truncation_side = "middle"
        with pytest.raises(BadRequestError, match="truncation_side is 'middle'"):
            adding.encode("ab c", max_length=2)
    finally:
        adding.truncation_side, adding.padding_side = "right", "right"


def test_special_tokens_in_a_text(adding: Tokenizer) -> None:
    assert adding.encode("<|endoftext|>", add_special_tokens=False) == [256]
    plain = adding.encode("<|endoftext|>", add_special_tokens=False, split_special_tokens=True)
    assert adding.decode(plain) == "<|endoftext|>"
    assert 256 not in plain


def test_call(adding: Tokenizer) -> None:
    assert adding("ab c") == {"input_ids": [256, 257, 220, 66], "attention_mask": [1, 1, 1, 1]}
    assert adding(["ab", "c d"], padding=True, add_special_tokens=False) == {
        "input_ids": [[257, 259, 259], [66, 220, 67]],
        "attention_mask": [[1, 0, 0], [1, 1, 1]],
    }
    assert adding("é", return_attention_mask=False).keys() == {"input_ids"}
    assert adding([]) == {"input_ids": []}
    assert adding("ab é", return_token_type_ids=True, return_special_tokens_mask=True,
                  return_offsets_mapping=True, return_length=True) == {
        "input_ids": [256, 257, 220, 127, 102],
        "token_type_ids": [0] * 5,
        "attention_mask": [1] * 5,
        "special_tokens_mask": [1, 0, 0, 0, 0],
        "offset_mapping": [(0, 0), (0, 2), (2, 3), (3, 4), (3, 4)],
        "length": [5],
    }  # fmt: skip
    batch = adding(["a", "bc"], padding=True, return_special_tokens_mask=True, return_offsets_mapping=True)
    assert batch.special_tokens_mask == [[1, 0, 1], [1, 0, 0]]
    assert batch.offset_mapping == [[(0, 0), (0, 1), (0, 0)], [(0, 0), (0, 1), (1, 2)]]


def test_offsets_by_the_sources_own_tokenizer(tmp_path: Path) -> None:
    """Its normalizer writes two characters as one, which bytes of tokens cannot tell."""
    plain = Tokenizer(load_model(write_random_model(tmp_path / "plain.gguf", shape=Shape(n_layer=1)), 0))
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=plain.get_vocab(), merges=[("a", "b")]))
    library.normalizer = tokenizers.normalizers.NFC()
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    said = {"tokenizer.huggingface.json": library.to_str()}
    path = write_random_model(tmp_path / "embedded.gguf", shape=Shape(n_layer=1), said=said)
    embedded = Tokenizer(load_model(path, 0))
    text = "abe\u0301x"
    assert embedded(text, return_offsets_mapping=True) == {
        "input_ids": [257, 127, 102, 87],
        "attention_mask": [1, 1, 1, 1],
        "offset_mapping": [(0, 2), (2, 3), (2, 3), (4, 5)],
    }
    template = "ab{% generation %}e\u0301{% endgeneration %}x"
    options = {"chat_template": template, "return_assistant_tokens_mask": True}
    assert embedded.apply_chat_template([{"role": "user"}], **options)["assistant_masks"] == [0, 1, 1, 0]


def test_tensors(adding: Tokenizer) -> None:
    encoding = adding(["a", "bc"], padding=True, return_tensors="np")
    assert np.array_equal(encoding.input_ids, [[256, 64, 259], [256, 65, 66]])
    assert encoding.attention_mask.dtype == np.int64
    assert adding.encode("ab", return_tensors="np").shape == (1, 2)
    assert encoding.to("cpu") is encoding
    with pytest.raises(BadRequestError, match="texts of 2 to 3 tokens are no tensor; give padding=True"):
        adding(["a", "bc"], return_tensors="np")
    with pytest.raises(AttributeError, match="no 'labels'; it has input_ids"):
        encoding.labels  # noqa: B018


def test_pad(adding: Tokenizer) -> None:
    padded = {"input_ids": [[1, 259], [1, 2]], "attention_mask": [[1, 0], [1, 1]]}
    assert adding.pad({"input_ids": [[1], [1, 2]]}) == padded
    assert adding.pad([{"input_ids": [1]}, {"input_ids": [1, 2]}]) == padded
    assert adding.pad(adding(["a", "bc"])) == adding(["a", "bc"], padding=True)
    one = adding.pad({"input_ids": [1]}, padding="max_length", max_length=2, return_attention_mask=False)
    assert one == {"input_ids": [1, 259]}
    arrays = adding.pad({"input_ids": [np.array([1]), np.array([1, 2])]}, return_tensors="np")
    assert np.array_equal(arrays.attention_mask, padded["attention_mask"])
    with pytest.raises(BadRequestError, match="pad takes encodings"):
        adding.pad([[1], [2]])  # type: ignore[list-item]


def test_padding_needs_a_token(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "m.gguf", shape=Shape(n_layer=1))
    tokenizer = Tokenizer(load_model(path, 0))
    with pytest.raises(BadRequestError, match=r"no padding token; set one: tokenizer\.pad_token"):
        tokenizer(["a", "bc"], padding=True)
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer(["a", "bc"], padding=True).input_ids == [[64, 256], [65, 66]]
    tokenizer.pad_token_id = 258
    assert tokenizer.pad_token == "word0"
    with pytest.raises(BadRequestError, match="is no token"):
        tokenizer.pad_token = "nothing"


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(adding: Tokenizer, name: str) -> None:
    for refuse in (lambda: adding("a", **{name: "x"}), lambda: adding.decode([64], **{name: "x"})):
        with pytest.raises(BadRequestError, match=name):
            refuse()


@pytest.mark.parametrize(
    "options",
    [
        {"nonsense": 1},
        {"padding": "x"},
        {"padding": 1},
        {"truncation": "only_second"},
        {"truncation": []},
        {"max_length": 0},
        {"max_length": True},
        {"max_length": "3"},
        {"pad_to_multiple_of": -1},
        {"padding_side": "middle"},
        {"return_tensors": "tf"},
    ],
)
def test_arguments_that_are_wrong(adding: Tokenizer, options: dict[str, Any]) -> None:
    for call in (adding.encode, adding, adding.tokenize):
        with pytest.raises(BadRequestError, match=f"{next(iter(options))}"):
            call("a", **options)


@pytest.mark.parametrize("text", [None, 3, b"a", [3], ["a", None], [["a"]]])
def test_what_is_no_text(adding: Tokenizer, text: Any) -> None:
    with pytest.raises(BadRequestError, match="text"):
        adding(text)
    with pytest.raises(BadRequestError, match=r"encode takes a str.*tokenizer\(texts\)"):
        adding.encode(text)


def test_a_second_position_is_no_flag(adding: Tokenizer) -> None:
    with pytest.raises(BadRequestError, match="text_pair=False"):
        adding.encode("a", False)
    assert adding.encode("a", None, False) == [64]


def test_other_methods(adding: Tokenizer) -> None:
    assert adding.tokenize("ab é") == ["ab", "Ġ", "Ã", "©"]
    assert adding.tokenize("ab", add_special_tokens=True) == ["<|endoftext|>", "ab"]
    assert adding.num_special_tokens_to_add() == 1
    assert adding.is_fast
    assert adding.model_max_length == Shape.n_ctx
