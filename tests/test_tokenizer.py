"""The tokenizer's face; its ids are compared with transformers' in tests/parity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinker_local import BadRequestError, Tokenizer

CHAT = [{"role": "user", "content": "Hi there"}]


@pytest.mark.parametrize(
    "text", ["", "Hello world", " leading", "tab\tand\nlines\n\n", "naïve 😀 中文 ١٢٣", "a" * 5000]
)
def test_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("<|im_start|>user") == [1, 4093]
    assert tokenizer.decode([1, 4093]) == "<|im_start|>user"
    assert tokenizer.decode([1, 4093], skip_special_tokens=True) == "user"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.vocab_size == len(tokenizer) == 49152


def test_decode_takes_what_people_have(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("one two")
    assert tokenizer.decode(ids[0]) == "one"
    assert tokenizer.decode(np.int64(ids[0])) == "one"
    assert tokenizer.decode(np.array(ids, np.int32)) == "one two"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([ids, ids]) == tokenizer.batch_decode([ids, ids]) == ["one two"] * 2
    assert tokenizer.convert_ids_to_tokens(ids) == ["one", "Ġtwo"]


def test_half_a_character(tokenizer: Tokenizer) -> None:
    first, *rest = tokenizer.encode("😀")
    assert rest
    assert tokenizer.decode([first]).endswith("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("ids", [[49152], [-1], ["a"], [1.5], [None], 10**12, [[1, 99999]]])
def test_ids_that_are_none(tokenizer: Tokenizer, ids: Any) -> None:
    with pytest.raises(BadRequestError):
        tokenizer.decode(ids)


def test_encode_takes_text_only(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadRequestError, match="bytes"):
        tokenizer.encode(b"abc")  # type: ignore[arg-type]


class TestChatTemplate:
    def test_text_and_ids(self, tokenizer: Tokenizer) -> None:
        text = tokenizer.apply_chat_template(CHAT, tokenize=False)
        assert text.endswith("<|im_start|>user\nHi there<|im_end|>\n")
        prompted = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
        assert prompted == text + "<|im_start|>assistant\n"
        ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True)
        assert tokenizer.decode(ids) == prompted
        both = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)
        assert both == {"input_ids": ids, "attention_mask": [1] * len(ids)}

    def test_what_templates_expect_is_there(self, tokenizer: Tokenizer) -> None:
        template = (
            "{%- for m in messages -%}{%- if loop.index > 2 -%}{%- break -%}{%- endif -%}"
            "{% generation %}{{ m['content'] }}{% endgeneration %}{%- endfor -%}"
            "{{ {'a': '<é>'} | tojson }}{{ eos_token }}{{ strftime_now('%%') }}{{ extra }}"
        )
        text = tokenizer.apply_chat_template(CHAT * 3, tokenize=False, chat_template=template, extra=5)
        assert text == 'Hi thereHi there{"a": "<é>"}<|im_end|>%5'

    @pytest.mark.parametrize(
        ("template", "said"),
        [
            ("{{ raise_exception('no system role') }}", "no system role"),
            ("{% if %}", "refuses"),
            ("{{ messages[0].content.nothing.more }}", "nothing"),
            ("{{ messages.append(1) }}", "append"),
            ("{{ ''.__class__.__mro__ }}", "unsafe|__class__"),
            ("{{ cycler.__init__.__globals__ }}", "unsafe|__init__"),
            ("{{ 1 / 0 }}", "ZeroDivision"),
        ],
    )
    def test_hostile_and_broken_templates(self, tokenizer: Tokenizer, template: str, said: str) -> None:
        with pytest.raises(BadRequestError, match=said):
            tokenizer.apply_chat_template(CHAT, tokenize=False, chat_template=template)

    def test_the_last_message_can_be_continued(self, tokenizer: Tokenizer) -> None:
        chat = [*CHAT, {"role": "assistant", "content": "Well, "}]
        whole = tokenizer.apply_chat_template(chat, tokenize=False)
        text = tokenizer.apply_chat_template(chat, tokenize=False, continue_final_message=True)
        assert text == whole.removesuffix("<|im_end|>\n")
        assert text.endswith("assistant\nWell, ")
        ids = tokenizer.apply_chat_template(chat, continue_final_message=True)
        assert tokenizer.decode(ids) == text
        trimming = "{% for m in messages %}[{{ m['content'] | trim }}]{% endfor %}"
        options = {"tokenize": False, "continue_final_message": True, "chat_template": trimming}
        text = tokenizer.apply_chat_template(chat, **options)  # type: ignore[call-overload]
        assert text == "[Hi there][Well,"

    @pytest.mark.parametrize(
        ("chat", "options"),
        [
            (CHAT, {"add_generation_prompt": True}),
            (CHAT, {"chat_template": "{{ messages[0]['role'] }}"}),
            ([], {}),
            ([{"role": "user"}], {}),
            ([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], {}),
            (["Hi"], {}),
        ],
    )
    def test_what_cannot_be_continued(self, tokenizer: Tokenizer, chat: Any, options: Any) -> None:
        with pytest.raises(BadRequestError):
            tokenizer.apply_chat_template(chat, tokenize=False, continue_final_message=True, **options)

    def test_messages_that_are_none(self, tokenizer: Tokenizer) -> None:
        with pytest.raises(BadRequestError):
            tokenizer.apply_chat_template([{"content": None, "role": 3}], tokenize=False)
