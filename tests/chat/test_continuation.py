"""A last message that is left open; right values of transformers 5.24, unless a test says otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from tinker_local import BadRequestError, Tokenizer
from tinker_local.chat import continuation
from tinker_local.chat.continuation import render_open

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
PARTS = "{% for m in messages %}[{% for p in m.content %}({{ p.text }}){% endfor %}]{% endfor %}"
THINKS = (
    "{% for m in messages %}{% if m.reasoning_content is defined %}<think>{{ m.reasoning_content }}</think>"
    "{% endif %}{{ m.content }}|{% endfor %}"
)


def last(content: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": content, **more}]


@pytest.mark.parametrize(
    ("template", "content", "text"),
    [
        (TURNS, "Well, ", "<user>Hi</><assistant>Well, "),
        (TURNS, "", "<user>Hi</><assistant>"),
        (TURNS, "<<end of what is>> 1", "<user>Hi</><assistant><<end of what is>> 1"),
        ("{% for m in messages %}[{{ m.content|trim }}]{% endfor %}", "Well, \n", "[Hi][Well,"),
        ("{% for m in messages %}[{{ m.content.rstrip('\\n') }}]{% endfor %}", "a \n", "[Hi][a \n"),
        ("{% for m in messages %}[{% if m.content %}{{ m.content }}{% endif %}]{% endfor %}", "", "[Hi]["),
        (PARTS, [{"text": "a"}, {"text": "b "}], "[()()][(a)(b "),
        (PARTS, [{"text": "a"}, {"type": "image"}], "[()()][(a"),
    ],
)  # fmt: skip
def test_is_left_open(template: str, content: Any, text: str) -> None:
    messages = last(content)
    assert render_open(template, messages) == text
    assert messages == last(content)


def test_reasoning_by_any_of_its_names(tiny_tokenizer: Tokenizer) -> None:
    for name in ("reasoning_content", "thinking", "reasoning"):
        messages = last("", **{name: "I think "})
        options = {"chat_template": THINKS, "tokenize": False, "continue_final_message": name}
        assert tiny_tokenizer.apply_chat_template(messages, **options) == "Hi|<think>I think "


def test_content_that_is_written_more_than_once() -> None:
    """transformers leaves its mark in the text."""
    template = "{% for m in messages %}{{ m.content }}-{{ m.content }};{% endfor %}"
    assert render_open(template, last("ab")) == "Hi-Hi;ab-ab"


def test_content_that_is_rewritten_evenly() -> None:
    """transformers refuses these, since it looks for the content as it was."""
    assert render_open("{{ messages[-1].content|upper }};", last("ab")) == "AB"
    assert render_open("{{ messages[-1].content|tojson }};", last('a"b')) == '"a\\"b'


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[-1].content[:5] }}{{ messages[-1].content }}",
        "{{ messages[-1].content|length }}{{ messages[-1].content }}",
        "{{ messages[-1].content.replace('1', '') }}{{ messages[-1].content }}",
        "{{ messages[-1].content[:5] }}",
        "{{ messages[0].content }}",
        "{{ messages[-1].content[::-1] }}",
    ],
)
def test_nothing_of_the_mark_is_left(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuation, "new_mark", lambda: "3141592653589793238462643383279502884197")
    with pytest.raises(BadRequestError, match="continue_final_message cannot be used"):
        render_open(template, last("ab"))


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        (last([{"type": "image"}]), "content"),
        (last(None), "content"),
        (last(3), "content"),
        (last("a"), "reasoning_content"),
        (last("a", tool_calls=[{"text": 1}]), "tool_calls"),
    ],
)
def test_there_is_no_text(messages: Any, field: str) -> None:
    with pytest.raises(BadRequestError, match=f"needs a last message with text in '{field}'"):
        render_open(TURNS, messages, field)


@pytest.mark.parametrize(("value", "said"), [(3, "name of a field"), (["content"], "name of a field")])
def test_a_field_that_is_no_name(tiny_tokenizer: Tokenizer, value: Any, said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        tiny_tokenizer.apply_chat_template(last("a"), chat_template=TURNS, continue_final_message=value)


def test_a_batch(tiny_tokenizer: Tokenizer) -> None:
    texts = tiny_tokenizer.apply_chat_template(
        [last("a"), last("b")], chat_template=TURNS, continue_final_message=True, tokenize=False
    )
    assert texts == ["<user>Hi</><assistant>a", "<user>Hi</><assistant>b"]
