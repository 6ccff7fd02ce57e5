"""Which of a file's templates a conversation takes; right values of transformers 4.57 and 5.24."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.random_model import Shape, write_random_model
from tinker_local import BadRequestError, Tokenizer
from tinker_local.llama.model import load_model

CHAT = [{"role": "user", "content": "Hi"}]
NAMED = {
    "default": "D{{ messages[0].content }}",
    "tool_use": "T{{ tools|tojson }}",
    "rag": "R{{ documents[0].text }}",
}


def open_with(directory: Path, templates: dict[str, str]) -> Tokenizer:
    said = {
        "tokenizer.chat_template" + ("" if name == "default" else f".{name}"): text
        for name, text in templates.items()
    }
    path = write_random_model(directory / "m.gguf", shape=Shape(n_layer=1), said=said)
    return Tokenizer(load_model(path, 0))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return open_with(tmp_path_factory.mktemp("named"), NAMED)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "DHi"),
        ({"tools": [{"a": 1}]}, 'T[{"a": 1}]'),
        ({"tools": []}, "T[]"),
        ({"chat_template": "tool_use"}, "Tnull"),
        ({"chat_template": "rag", "documents": [{"text": "x"}]}, "Rx"),
        ({"chat_template": "rag", "documents": [{"text": "x"}], "tools": [{"a": 1}]}, "Rx"),
        ({"chat_template": "{{ tools|length }}", "tools": [{"a": 1}]}, "1"),
        ({"chat_template": "default", "tools": [{"a": 1}]}, "DHi"),
        ({"chat_template": ""}, ""),
    ],
)
def test_named_templates(named: Tokenizer, options: dict[str, Any], text: str) -> None:
    assert named.apply_chat_template(CHAT, tokenize=False, **options) == text


def test_get_chat_template(named: Tokenizer) -> None:
    assert named.chat_template == NAMED
    assert named.get_chat_template() == NAMED["default"]
    assert named.get_chat_template(tools=[]) == NAMED["tool_use"]
    assert named.get_chat_template("rag", tools=[{"a": 1}]) == NAMED["rag"]
    assert named.get_chat_template("{{ 1 }}") == "{{ 1 }}"


def test_a_name_that_is_none(named: Tokenizer) -> None:
    """transformers writes the name as the conversation's text."""
    with pytest.raises(BadRequestError, match="no chat template 'tool-use'; it has default, rag, tool_"):
        named.apply_chat_template(CHAT, tokenize=False, chat_template="tool-use")
    with pytest.raises(BadRequestError, match="chat_template is a int"):
        named.apply_chat_template(CHAT, tokenize=False, chat_template=3)


def test_one_template(tmp_path: Path) -> None:
    tokenizer = open_with(tmp_path, {"default": "D{{ tools }}"})
    assert tokenizer.chat_template == tokenizer.get_chat_template(tools=[]) == "D{{ tools }}"
    assert tokenizer.apply_chat_template(CHAT, [{"a": 1}], tokenize=False) == "D[{'a': 1}]"
    tokenizer.chat_template = "{{ messages|length }}"
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == "1"
    tokenizer.chat_template = None
    with pytest.raises(BadRequestError, match=r"m\.gguf has no chat template; pass one"):
        tokenizer.get_chat_template()


def test_no_default(tmp_path: Path) -> None:
    tokenizer = open_with(tmp_path, {"rag": "R"})
    assert tokenizer.get_chat_template("rag") == "R"
    with pytest.raises(BadRequestError, match="no chat template 'default'; it has rag"):
        tokenizer.get_chat_template()
