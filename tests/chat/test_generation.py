"""The tag {% generation %}; the right values are transformers 5.24's, unless a test says otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinker_local import BadRequestError, Tokenizer
from tinker_local.chat.generation import render_with_spans
from tinker_local.chat.template import render

USER, SAID = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "ab é😀"}
TURNS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}.{% endgeneration %}{% else %}{{ m.content }}?{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% set x='out' %}{% generation %}{% set x='in' %}a{% endgeneration %}{{ x }}", "aout"),
        ("{% generation %}{% set y = 1 %}{% endgeneration %}{{ y is defined }}", "False"),
        ("{% set x='out' %}{% generation %}{{ x }}{% set x='in' %}{{ x }}{% endgeneration %}", "outin"),
        ("{% for m in [1, 2] %}{% generation %}{{ loop.index }}{% set y=3 %}{% endgeneration %}{{ y }}"
         "{% endfor %}", "12"),
        ("{% set n=namespace(x=1) %}{% generation %}{% set n.x=2 %}{% endgeneration %}{{ n.x }}", "2"),
        ("a\n  {% generation %}\n  b\n  {%- endgeneration %}\nc", "a\n  bc"),
        ("a \n{%- generation -%}\n b {% endgeneration %}c", "ab c"),
    ],
)  # fmt: skip
def test_is_a_scope(template: str, text: str) -> None:
    assert render(template, [USER]) == text


def spans(template: str, messages: list[dict[str, str]]) -> list[str]:
    text, found = render_with_spans(template, messages)
    assert text == render(template, messages)
    return [text[start:end] for start, end in found]


def test_spans() -> None:
    assert spans(TURNS, [USER, SAID, USER, SAID]) == ["ab é😀.", "ab é😀."]
    assert spans(TURNS, [USER]) == []
    assert spans("x{% generation %}{% endgeneration %}y", [USER]) == []


def test_spans_within_macros_blocks_and_tags() -> None:
    """transformers takes them to begin where the macro's text does."""
    macro = (
        "{% macro f(t) %}q{% generation %}{{ t }}{% endgeneration %}{% endmacro %}x{{ f('z') }}{{ f('y') }}"
    )
    assert spans(macro, [USER]) == ["z", "y"]
    block = "{% set t %}q{% generation %}z{% endgeneration %}w{% endset %}x{{ t }}{{ t|upper }}"
    assert spans(block, [USER]) == ["z", "Z"]
    nested = "a{% generation %}b{% generation %}c{% endgeneration %}d{% endgeneration %}e"
    assert spans(nested, [USER]) == ["bcd"]


def test_text_that_the_template_changes_afterwards() -> None:
    template = "{% set t %}q{% generation %}z {% endgeneration %}{% endset %}{{ t|trim }}"
    with pytest.raises(BadRequestError, match="changes what its generation tags enclose"):
        render_with_spans(template, [USER])


def masks(tokenizer: Tokenizer, conversation: Any, **options: Any) -> Any:
    options = {"chat_template": TURNS, "return_assistant_tokens_mask": True, **options}
    return tokenizer.apply_chat_template(conversation, return_dict=True, **options)


def test_assistant_masks(tiny_tokenizer: Tokenizer) -> None:
    """A token is the assistant's if one of its characters is; é and the smile are several tokens."""
    encoding = masks(tiny_tokenizer, [USER, SAID])
    assert encoding == {
        "input_ids": [39, 72, 30, 257, 220, 127, 102, 172, 253, 246, 222, 13],
        "attention_mask": [1] * 12,
        "assistant_masks": [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    }
    part = "a{% generation %}b{% endgeneration %}c"  # "ab" is one token
    assert masks(tiny_tokenizer, [USER], chat_template=part).assistant_masks == [1, 0]
    last = "x{% generation %}😀{% endgeneration %}"  # transformers 4 leaves out all bytes but the first
    assert masks(tiny_tokenizer, [USER], chat_template=last).assistant_masks == [0, 1, 1, 1, 1]


def test_assistant_masks_of_batches_tensors_and_cut_texts(tiny_tokenizer: Tokenizer) -> None:
    chats = [[USER], [USER, {"role": "assistant", "content": "x"}]]
    encoding = masks(tiny_tokenizer, chats, padding=True, tokenizer_kwargs={"padding_side": "left"})
    assert encoding.assistant_masks == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]
    assert encoding.attention_mask == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    encoding = masks(tiny_tokenizer, chats[1], return_tensors="np", truncation=True, max_length=4)
    assert np.array_equal(encoding.assistant_masks, [[0, 0, 0, 1]])
    assert masks(tiny_tokenizer, [USER]).assistant_masks == [0, 0, 0]


@pytest.mark.parametrize(
    "options", [{"tokenize": False}, {"return_dict": False}, {"continue_final_message": True}]
)
def test_what_masks_exclude(tiny_tokenizer: Tokenizer, options: dict[str, Any]) -> None:
    options = {"chat_template": TURNS, "return_assistant_tokens_mask": True, **options}
    with pytest.raises(BadRequestError, match="return_assistant_tokens_mask"):
        tiny_tokenizer.apply_chat_template([USER, SAID], **options)
