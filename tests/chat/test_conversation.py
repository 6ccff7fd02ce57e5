"""What callers have, as templates get it; the right values are transformers 5.24's."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydantic
import pytest

from tinker_local import BadRequestError, Tokenizer

USER, SAID = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "ab"}
TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ '>' if add_generation_prompt }}"
JSON = "{{ messages|tojson }}"


@dataclass
class Part:
    text: str


@dataclass
class Message:
    role: str
    content: Any


class Reply(pydantic.BaseModel):
    role: str = "assistant"
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Thread:
    messages = (USER, SAID)


class Role(enum.StrEnum):
    USER = "user"


def text_of(tokenizer: Tokenizer, conversation: Any, template: str = TURNS, **options: Any) -> Any:
    return tokenizer.apply_chat_template(conversation, chat_template=template, tokenize=False, **options)


def test_batches(tiny_tokenizer: Tokenizer) -> None:
    texts = ["<user>Hi", "<user>Hi<assistant>ab"]
    assert text_of(tiny_tokenizer, [[USER], [USER, SAID]]) == texts
    assert text_of(tiny_tokenizer, ((USER,), (USER, SAID))) == texts
    assert text_of(tiny_tokenizer, [Thread(), Thread()]) == [texts[1]] * 2
    assert text_of(tiny_tokenizer, Thread()) == texts[1]
    assert text_of(tiny_tokenizer, [[USER]], add_generation_prompt=True) == ["<user>Hi>"]
    ids = tiny_tokenizer.apply_chat_template([[USER], [SAID]], chat_template="{{ messages[0].content }}")
    assert ids == [[39, 72], [257]]
    encoding = tiny_tokenizer.apply_chat_template(
        [[USER], [SAID]], chat_template="x{{ 1 }}", return_dict=True
    )
    assert encoding == {"input_ids": [[87, 16]] * 2, "attention_mask": [[1, 1]] * 2}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "a", "content": None, "calls": [{"f": 1}]}, '[{"role": "a", "calls": [{"f": 1}]}]'),
        ({"role": "a", "content": "x", "tool_calls": None}, '[{"role": "a", "content": "x"}]'),
        ({"role": "a", "content": [{"text": None}]}, '[{"role": "a", "content": [{"text": null}]}]'),
        (Reply(tool_calls=[{"f": 1}]), '[{"role": "assistant", "tool_calls": [{"f": 1}]}]'),
        (Message("a", [Part("x")]), '[{"role": "a", "content": [{"text": "x"}]}]'),
        ({"role": Role.USER, "content": "x"}, '[{"role": "user", "content": "x"}]'),
        ({"a": np.int64(3), "b": np.bool_(0), "c": np.float32(0.5)}, '[{"a": 3, "b": false, "c": 0.5}]'),
        ({"image": np.zeros(2), "set": {1}, "bytes": b"q"},
         '[{"image": "<ndarray>", "set": "<set>", "bytes": "<bytes>"}]'),
        ({"reasoning": "r"}, '[{"thinking": "r", "reasoning": "r", "reasoning_content": "r"}]'),
        ({"thinking": "r", "a": "x"}, '[{"thinking": "r", "a": "x", "reasoning_content": "r"}]'),
    ],
)  # fmt: skip
def test_plain_values(tiny_tokenizer: Tokenizer, message: Any, text: str) -> None:
    assert text_of(tiny_tokenizer, [message], JSON) == text


def test_content_that_is_none(tiny_tokenizer: Tokenizer) -> None:
    called = [USER, {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}]
    assert text_of(tiny_tokenizer, called) == "<user>Hi<assistant>"
    assert called[1]["content"] is None


@pytest.mark.parametrize(
    ("conversation", "said"),
    [
        ([], "empty"),
        ([[]], "empty"),
        ("Hi", "conversation is a str"),
        (None, "conversation is a NoneType"),
        (["Hi"], r"message 0 is a str \('Hi'\)"),
        ([USER, ["Hi"]], "message 1 is a list"),
        ([[USER], USER], "conversation is a dict"),
    ],
)
def test_conversations_that_are_none(tiny_tokenizer: Tokenizer, conversation: Any, said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        text_of(tiny_tokenizer, conversation)


def test_values_without_end(tiny_tokenizer: Tokenizer) -> None:
    message: dict[str, Any] = {"role": "user"}
    message["content"] = [message]
    with pytest.raises(BadRequestError, match="nested too deeply"):
        text_of(tiny_tokenizer, [message])


def test_variables(tiny_tokenizer: Tokenizer) -> None:
    """What transformers does not know goes to the template, and may replace special tokens."""
    assert text_of(tiny_tokenizer, [USER], "{{ enable_thinking }}", enable_thinking=False) == "False"
    assert (
        text_of(tiny_tokenizer, [USER], "{{ eos_token }}{{ bos_token }}", eos_token="!") == "!<|endoftext|>"
    )
    assert text_of(tiny_tokenizer, [USER], "{{ unk_token }}{{ pad_token }}") == "<|endoftext|>"
    documents = [{"title": "t", "text": "x"}]
    assert text_of(tiny_tokenizer, [USER], "{{ documents[0]['text'] }}", documents=documents) == "x"
    for wrong, said in ((["x"], "a document is a str"), (5, "documents is a int")):
        with pytest.raises(BadRequestError, match=said):
            text_of(tiny_tokenizer, [USER], documents=wrong)


def test_arguments_of_transformers_are_no_variables(tiny_tokenizer: Tokenizer) -> None:
    template = "{{ padding }}{{ truncation }}{{ max_length }}{{ tokenize }}{{ add_special_tokens }}{{ x }}"
    options = {"padding": True, "truncation": False, "add_special_tokens": False, "x": "."}
    assert text_of(tiny_tokenizer, [USER], template, **options) == "."
    for name, value in {
        "padding_side": "left",
        "return_attention_mask": False,
        "split_special_tokens": True,
        "add_special_tokens": True,
        "text_pair": "x",
        "stride": 1,
        "sanitize_control_tokens": True,
        "messages": [],
    }.items():
        with pytest.raises(BadRequestError, match=f"apply_chat_template .*{name}"):
            text_of(tiny_tokenizer, [USER], template, **{name: value})


def test_positions_are_those_of_transformers(tiny_tokenizer: Tokenizer) -> None:
    given = ([USER], [{"a": 1}], [{"b": 2}], "{{ tools }}{{ documents }}{{ add_generation_prompt }}", True)
    text = tiny_tokenizer.apply_chat_template(*given, False, False)  # type: ignore[call-overload]
    assert text == "[{'a': 1}][{'b': 2}]True"


def test_lengths_and_tensors(tiny_tokenizer: Tokenizer) -> None:
    def ids(conversation: Any, **options: Any) -> Any:
        return tiny_tokenizer.apply_chat_template(
            conversation, chat_template="{{ messages[0].content }}", **options
        )

    long = {"role": "user", "content": "a long text"}
    assert ids([long], truncation=True, max_length=3) == [64, 220, 75]
    assert len(ids([long], max_length=3)) == 11
    assert ids([USER], padding="max_length", max_length=4) == [39, 72, 256, 256]
    assert ids([[USER], [SAID]], padding=True) == [[39, 72], [257, 256]]
    left = {"padding_side": "left", "return_attention_mask": False}
    assert ids([[USER], [SAID]], padding=True, return_dict=True, tokenizer_kwargs=left) == {
        "input_ids": [[39, 72], [256, 257]]
    }
    assert np.array_equal(ids([USER], return_tensors="np"), [[39, 72]])
    for wrong, said in (({"padding": True}, "has 'padding'"), (3, "is 3; it must be a dict")):
        with pytest.raises(BadRequestError, match=f"tokenizer_kwargs {said}"):
            ids([USER], tokenizer_kwargs=wrong)
    with pytest.raises(BadRequestError, match="return_tensors is 'tf'"):
        ids([USER], return_tensors="tf")


def test_json_in_templates(tiny_tokenizer: Tokenizer) -> None:
    template = (
        "{{ {'b': 'é', 'a': 1}|tojson(false, 2, sort_keys=true) }}"
        "{{ {'a': 1}|tojson(separators=(',', ':')) }}"
    )
    assert text_of(tiny_tokenizer, [USER], template) == '{\n  "a": 1,\n  "b": "é"\n}{"a":1}'
