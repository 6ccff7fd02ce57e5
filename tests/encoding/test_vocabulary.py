"""Ids to text, and tokens by name; the right values are those of transformers 5.24."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinker_local import BadRequestError, Tokenizer


def test_decode(tiny_tokenizer: Tokenizer) -> None:
    decode = tiny_tokenizer.decode
    assert decode([64, 256, 65]) == "a<|endoftext|>b"
    assert decode([64, 256, 65], skip_special_tokens=True) == "ab"
    assert decode(tiny_tokenizer("ab c")) == "ab c"  # type: ignore[arg-type]
    assert decode(np.array([[64], [65]])) == ["a", "b"]  # type: ignore[call-overload]
    assert decode(np.array(64)) == "a"  # type: ignore[call-overload]
    options = {"clean_up_tokenization_spaces": False, "spaces_between_special_tokens": False}
    assert decode([64, 220, 13], **options) == "a ."  # llama.cpp's own function takes the space out


def test_batch_decode(tiny_tokenizer: Tokenizer) -> None:
    decode = tiny_tokenizer.batch_decode
    assert decode([[64, 256], [65]], skip_special_tokens=True) == ["a", "b"]
    assert decode(np.array([[64], [65]])) == ["a", "b"]
    assert decode(tiny_tokenizer(["ab", "c"])) == ["ab", "c"]
    assert decode([64, 65]) == ["ab"]
    assert decode([]) == []
    with pytest.raises(BadRequestError, match="decode has no argument 'nonsense'"):
        decode([[64]], nonsense=1)


def test_tokens_by_name(tiny_tokenizer: Tokenizer) -> None:
    assert tiny_tokenizer.convert_tokens_to_ids("ab") == 257
    assert tiny_tokenizer.convert_tokens_to_ids(["ab", "nope"]) == [257, None]
    assert tiny_tokenizer.convert_ids_to_tokens([0, 256]) == ["!", "<|endoftext|>"]
    assert tiny_tokenizer.convert_ids_to_tokens([0, 256], skip_special_tokens=True) == ["!"]
    assert tiny_tokenizer.convert_tokens_to_string(["ab", "Ġ", "c"]) == "ab c"
    with pytest.raises(BadRequestError, match="'nope' is no token"):
        tiny_tokenizer.convert_tokens_to_string(["nope"])
    vocabulary = tiny_tokenizer.get_vocab()
    assert (len(vocabulary), vocabulary["ab"]) == (400, 257)
    assert tiny_tokenizer.get_added_vocab() == {"<|endoftext|>": 256}


def test_special_tokens(tiny_tokenizer: Tokenizer) -> None:
    assert tiny_tokenizer.special_tokens_map == {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    assert tiny_tokenizer.all_special_ids == [256]
    assert tiny_tokenizer.all_special_tokens == ["<|endoftext|>"]
    assert (tiny_tokenizer.unk_token, tiny_tokenizer.unk_token_id) == (None, None)


@pytest.mark.parametrize("token", [400, -1, "a", None, 1.5])
def test_ids_that_are_none(tiny_tokenizer: Tokenizer, token: Any) -> None:
    for call in (tiny_tokenizer.decode, tiny_tokenizer.convert_ids_to_tokens, tiny_tokenizer.token_bytes):
        with pytest.raises(BadRequestError, match="token id"):
            call(token)
    with pytest.raises(BadRequestError, match="token id"):
        tiny_tokenizer.pad_token_id = "a" if token is None else token
