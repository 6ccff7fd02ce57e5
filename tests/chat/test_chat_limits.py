"""Templates that would run, build or write without end are stopped with an error; honest ones are not."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tinker_local import BadRequestError
from tinker_local.chat import limits
from tinker_local.chat.template import render

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
NAMESPACE = "{% set ns = namespace(x='xx', y=[1]) %}"
DOUBLED = "{% set ns.x = ns.x {op} ns.x %}"
HOSTILE = {
    "loops in loops": (LOOPS, "runs for more than"),
    "loops that call nothing": (
        "{% set many = range(99999)|list %}{% for a in many %}{% for b in many %}{% endfor %}{% endfor %}",
        "runs for more than",
    ),
    "a macro that calls itself twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "runs for more than",
    ),
    "a recursive loop": (
        "{% for a in [[1]] recursive %}{{ loop([a, a]) }}{% endfor %}",
        "too deeply|runs for more|more than",
    ),
    "a macro without end": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "too deeply"),
    "a long text": ("{{ ('x' * 10**10)|length }}", "bits|builds more than"),
    "a text times a number": ("{{ ('x' * 9999999999)|length }}", "builds more than"),
    "a list times a number": ("{{ ([0] * 9999999999)|length }}", "builds more than"),
    "a large power": ("{{ 10 ** 99999 }}", "bits"),
    "a large product": (
        "{% set ns = namespace(x=99) %}{% for i in range(999) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "bits",
    ),
    "doubled by +": (
        NAMESPACE + "{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "builds more than",
    ),
    "doubled by ~": (
        NAMESPACE + "{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "builds more than",
    ),
    "doubled by join": (
        NAMESPACE + "{% for i in range(99) %}{% set ns.x = [ns.x, ns.x]|join(ns.x) %}{% endfor %}",
        "builds more than",
    ),
    "doubled by replace": (
        NAMESPACE + "{% for i in range(99) %}{% set ns.x = ns.x|replace('x', 'xx') %}{% endfor %}",
        "builds more than",
    ),
    "doubled by the method replace": (
        NAMESPACE + "{% for i in range(99) %}{% set ns.x = ns.x.replace('x', 'xx') %}{% endfor %}",
        "builds more than",
    ),
    "doubled lists": (
        NAMESPACE + "{% for i in range(99) %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.y }}",
        "items|more than",
    ),
    "doubled tables": (
        NAMESPACE + "{% for i in range(99) %}{% set ns.y = {'a': ns.y, 'b': ns.y} %}{% endfor %}",
        "items|more than",
    ),
    "doubled by dict": (
        NAMESPACE + "{% for i in range(99) %}{% set ns.y = dict(a=ns.y, b=ns.y) %}{% endfor %}",
        "items|more than",
    ),
    "lists added up": ("{{ range(99999)|batch(1)|sum(start=[])|length }}", "more than"),
    "much output": (
        "{% for a in range(99999) %}{{ messages[0]['content'] * 9999 }}{% endfor %}",
        "writes more than|builds more than|runs for more",
    ),
    "constant output": (
        "{% for a in range(99999) %}{% for b in range(99999) %}" + "x" * 50000 + "{% endfor %}{% endfor %}",
        "writes more than",
    ),
    "padding": ("{{ 'x'|center(999999999)|length }}", "width"),
    "a method's padding": ("{{ 'x'.ljust(999999999)|length }}", "width"),
    "padding in a map": ("{{ ['x']|map('center', 999999999)|list|length }}", "width"),
    "tabs": ("{{ '\\t'.expandtabs(999999999)|length }}", "width"),
    "indentation": ("{{ 'a\nb'|indent(999999999)|length }}", "width"),
    "indented JSON": ("{{ [1]|tojson(indent=999999999)|length }}", "width"),
    "rounding": ("{{ 1.5|round(999999999, 'ceil') }}", "width"),
    "a wide field": ("{{ '{:999999999}'.format(1)|length }}", "width"),
    "a wide field's width": ("{{ '{:{}}'.format(1, 999999999)|length }}", "width"),
    "a wide field of %": ("{{ ('%999999999d' % 1)|length }}", "width"),
    "a width of *": ("{{ ('%*d' % (999999999, 1))|length }}", "width"),
    "invented text": ("{{ lipsum(n=99999999) }}", "undefined"),
    "a large range": ("{{ range(10**9)|list|length }}", "Range too big"),
    "deep nesting": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "too deeply|compiled"),
    "deep blocks": ("{% if 1 %}" * 500 + "{% endif %}" * 500, "too deeply|compiled"),
    "a long template": ("x" * (1 << 20) + "x", "characters"),
    "the way out of the sandbox": ("{{ ''.__class__.__mro__ }}", "refuses"),
    "the way through a function": ("{{ raise_exception.__globals__.items() }}", "refuses"),
    "our own hooks": ("{{ tick() }}", "undefined"),
}


SLOW = (
    "doubled lists",
    "doubled tables",
    "doubled by dict",
    "lists added up",
    "doubled by replace",
    "doubled by the method replace",
)
"""Seconds pass until a limit stops them."""


@pytest.mark.parametrize("case", HOSTILE)
def test_is_stopped(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "runs for" in HOSTILE[case][1]:
        monkeypatch.setattr(limits, "_SECONDS", 0.2)
    if case in SLOW:
        monkeypatch.setattr(limits, "_BYTES", limits._BYTES >> 6)
        monkeypatch.setattr(limits, "_ITEMS", limits._ITEMS >> 6)
    assert_is_stopped(case)


@pytest.mark.long
@pytest.mark.parametrize("case", SLOW)
def test_is_stopped_by_the_limits_as_they_are(case: str) -> None:
    assert_is_stopped(case)


def assert_is_stopped(case: str) -> None:
    template, said = HOSTILE[case]
    with pytest.raises(BadRequestError, match=said):
        render(template, HELLO)


def test_a_long_conversation() -> None:
    """Limits grow with what is given."""
    messages = [{"role": "user", "content": f"{i} " + "word " * 2000} for i in range(1000)]
    template = (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{{ '<' + m['role'] + '>' + m.content|trim + (m.content[:10] ~ ns.n) + '\\n' }}{% endfor %}"
    )
    text = render(template, messages)
    assert text.startswith("<user>0 word word")
    assert len(text) > 9_000_000


def test_what_templates_do() -> None:
    template = (
        "{%- for m in messages if m.role == 'user' -%}{{ loop.index ~ m.role.upper()|replace('U', 'u') }}"
        "{%- if loop.last %}{{ [1, {'a': 2}]|tojson }}{{ '%s-%5.2f' % ('a', 1.5) }}{% endif -%}"
        "{%- endfor -%}"
        "{{ '{:>4} in 2024'.format(7) }}{{ [3, 1]|sort|join(', ') }}{{ [{'a': 1}, {'a': 2}]|sum('a') }}"
        "{% set a, b = 1, (2, 3) %}{{ b[0] + a }}{{ 'x' * 3 }}{{ dict(k='v').items()|list }}"
        "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join }}"
    )
    said = "1uSER[1, {\"a\": 2}]a- 1.50   7 in 20241, 333xxx[('k', 'v')]Hello"
    assert render(template, HELLO) == said


def test_threads_have_limits_of_their_own() -> None:
    texts: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: texts.append(render("{% for i in range(2000) %}x{% endfor %}", HELLO))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    with pytest.raises(BadRequestError):
        render(HOSTILE["a long text"][0], HELLO)
    for thread in threads:
        thread.join()
    assert texts == ["x" * 2000] * 4
