"""Which tokens begin, end and pad a text: those that the file names, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convert.vocabularies.vocabulary import read_vocabulary
from tests.convert.vocabulary_files import change, write_small_model
from tests.random_checkpoints.plain import write_tokenizer
from tests.random_model import Shape, write_random_model
from tinker_local import Tokenizer
from tinker_local.llama.model import load_model

Open = Callable[..., Tokenizer]
CHAT = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Open a tiny random model whose file names these tokens."""

    def opened(**options: Any) -> Tokenizer:
        path = write_random_model(tmp_path / "m.gguf", shape=Shape(n_layer=1), **options)
        return Tokenizer(load_model(path, 0))

    return opened


def test_no_bos(opened: Open) -> None:
    tokenizer = opened(named={"eos": 256})  # as llama.cpp's converter writes such a vocabulary
    assert (tokenizer.bos_token_id, tokenizer.bos_token) == (None, None)
    assert (tokenizer.eos_token_id, tokenizer.eos_token) == (256, "<|endoftext|>")
    template = "{{ bos_token }}{% if bos_token %}?{% endif %}{{ messages[0].content }}{{ eos_token }}"
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, chat_template=template)
    assert text == "Hi<|endoftext|>"


def test_no_eos_and_no_padding(opened: Open) -> None:
    """llama.cpp would say 11 for BOS and EOS, which is a comma here."""
    tokenizer = opened(named={})
    assert tokenizer.convert_ids_to_tokens(11) == ","
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (None, None, None)
    assert tokenizer.unk_token is None
    template = "{{ bos_token }}{{ eos_token }}{{ pad_token }}."
    assert tokenizer.apply_chat_template(CHAT, tokenize=False, chat_template=template) == "."


def test_a_comma_does_not_end_a_generation(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "m.gguf", shape=Shape(n_layer=1), named={"bos": 256})
    model = load_model(path, 0)
    assert [token for token in range(model.n_vocab) if model.is_eog(token)] == [256]


def test_a_bos_that_is_added_is_one(opened: Open) -> None:
    tokenizer = opened(named={}, adds_bos=True)
    assert tokenizer.encode("a")[0] == tokenizer.bos_token_id == 11


def test_a_converted_vocabulary(tmp_path: Path) -> None:
    """As Qwen's: ``bos_token`` is null, and config.json has an id for it all the same."""
    write_tokenizer(tmp_path, 400)
    templates = [
        {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"},
        {"name": "tool_use", "template": "{{ tools|length }}"},
    ]
    change(tmp_path / "tokenizer_config.json", lambda f: f.update(bos_token=None, chat_template=templates))
    vocabulary = read_vocabulary(tmp_path, {"bos_token_id": 256}, 400)
    tokenizer = Tokenizer(load_model(write_small_model(tmp_path / "m.gguf", vocabulary), 0))
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == (None, None)
    assert tokenizer.special_tokens_map == {"eos_token": "<|endoftext|>"}
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == "Hi<|endoftext|>"
    assert tokenizer.apply_chat_template(CHAT, [{"a": 1}], tokenize=False) == "1"


def test_bos_may_be_eos(opened: Open) -> None:
    """GPT-2's and OLMo 2's are one token; OLMo 2's template begins with it."""
    tokenizer = opened()
    assert tokenizer.bos_token == tokenizer.eos_token == "<|endoftext|>"
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, chat_template="{{ bos_token }}")
    assert text == "<|endoftext|>"
