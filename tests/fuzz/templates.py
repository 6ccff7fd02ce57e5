"""Random chat templates, and real ones with a piece changed, each rendered in a child.

    python -m tests.fuzz.templates [--count N] [--seed S]

The random ones are of Jinja's grammar, with numbers and texts that are large and loops in loops: templates
that would run for hours, or take all memory, as well as such that run.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.fuzz.command import Fuzzer, fuzzer_main

REAL = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}",
    "{%- set ns = namespace(found=false) -%}{%- for m in messages -%}{%- if m.role == 'system' -%}"
    "{%- set ns.found = true -%}{{ m.content | trim }}{%- elif m.role not in ['user', 'assistant'] -%}"
    "{{ raise_exception('bad role') }}{%- else -%}{{ loop.index0 ~ m.content[:20] }}{%- endif -%}"
    "{%- endfor -%}",
    "{% macro show(x, depth=0) %}{% if x is mapping %}{% for k, v in x.items() %}{{ '  ' * depth ~ k }}"
    "{{ show(v, depth + 1) }}{% endfor %}{% else %}{{ x | tojson(indent=2) }}{% endif %}{% endmacro %}"
    "{{ show({'a': messages, 'b': {'c': [1, 2]}}) }}",
)
WORDS = (
    "messages", "m", "x", "ns.x", "loop", "loop.index", "tools", "namespace", "range", "dict", "cycler",
    "joiner", "raise_exception", "strftime_now", "self", "caller", "true", "none", "''", "'x'", "'%s'",
    "'{}'", "'{:9}'", "0", "1", "-1", "7", "99", "9999", "99999", "10**9", "1e308", "2**63", "[]", "{}",
    "[1, 2]", "{'a': 1}", "()", "messages[0]", "'x' * 99", "'a b c'.split", "'x'.format", "'x'.join",
    "x.replace", "''.__class__", "range(9)", "range(99999)",
)  # fmt: skip
MARKS = ("{{", "}}", "{%", "%}", "|", "(", ")", "[", "\0", "é")
OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "not in", "and", "or")
FILTERS = (
    "length", "list", "join", "join(',')", "tojson", "tojson(indent=4)", "string", "int", "float",
    "upper", "trim", "first", "last", "sort", "unique|list", "reverse|list", "map('upper')|list",
    "replace('x', 'xx')", "center(99)", "center(10**9)", "indent(9999)", "batch(2)|list",
    "slice(3)|list", "sum", "sum(start=[])", "default('x')", "dictsort", "items|list",
    "groupby('role')|list", "round(2)", "round(999)", "abs", "e", "select|list",
    "map(attribute='role')|list", "truncate(9)", "wordcount", "format(1)", "attr('x')", "min", "max",
    "xmlattr", "filesizeformat", "random", "safe", "title", "urlencode",
)  # fmt: skip


def make(number: int, seed: int, _seeds: Path) -> bytes:
    rng = random.Random(f"{seed}:{number}")
    text = (
        _changed(rng, rng.choice(REAL))
        if number % 4 == 3
        else "{% set x = 'xx' %}{% set ns = namespace(x='xx') %}"
        + _block(rng, rng.choice((0, 1, 1, 2, 3, 4)))
    )
    return text.encode("utf-8", "surrogatepass")


def _changed(rng: random.Random, text: str) -> str:
    for _ in range(rng.choice((1, 1, 3))):
        at, end = sorted(rng.randrange(max(1, len(text))) for _ in range(2))  # nothing may be left of it
        piece = text[at : min(end, at + 30)]
        text = rng.choice((
            text[:at] + text[at + 1 :],
            text[:at] + rng.choice((*WORDS, *MARKS)) + text[at:],
            text[:at] + piece * rng.choice((2, 50)) + text[at:],
            text[:at],
        ))  # fmt: skip
    return text


def _block(rng: random.Random, depth: int) -> str:
    return "".join(_piece(rng, depth) for _ in range(rng.choice((1, 1, 1, 2))))


def _piece(rng: random.Random, depth: int) -> str:
    value = _value(rng, rng.choice((0, 1, 1, 2, 3)))
    if depth == 0:
        return "{{ " + value + " }}"
    inner = _block(rng, depth - 1)
    return rng.choice((
        "{{ " + value + " }}",
        "{% for m in " + value + " %}" + inner + "{% endfor %}",
        "{% for m in range(99999) %}" + inner + "{% endfor %}",
        "{% if " + value + " %}" + inner + "{% else %}" + inner + "{% endif %}",
        "{% set ns.x = " + value + " %}" + inner,
        "{% set ns.x = ns.x + ns.x %}" + inner,
        "{% set ns.x = [ns.x, ns.x] %}" + inner,
        "{% set x = " + value + " %}" + inner,
        "{% macro f(m) %}" + inner + "{{ f(m) }}{% endmacro %}{{ f(" + value + ") }}",
        "{% set x %}" + inner + "{% endset %}",
        "{% filter " + rng.choice(FILTERS) + " %}" + inner + "{% endfilter %}",
        "{% generation %}" + inner + "{% endgeneration %}",
        "{% for m in " + value + " recursive %}{{ loop(" + value + ") }}{% endfor %}",
        "{% for m in messages %}" + inner + "{% break %}{% endfor %}",
        "some text " * rng.choice((1, 1000)),
    ))  # fmt: skip


def _value(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(WORDS)
    left, right = _value(rng, depth - 1), _value(rng, depth - 1)
    return rng.choice((
        f"({left} {rng.choice(OPERATORS)} {right})",
        f"({left} {rng.choice(OPERATORS)} {right})",
        f"({left})|{rng.choice(FILTERS)}",
        f"({left})|{rng.choice(FILTERS)}",
        f"{rng.choice(WORDS)}({left})",
        f"{rng.choice(WORDS)}({left}, {right})",
        f"({left})[{right}]",
        f"({left})[{right}:{left}]",
        f"[{left}, {right}]",
        f"{{'a': {left}, 'b': {right}}}",
        f"({left} if {right} else {left})",
        f"({left}) is {rng.choice(('defined', 'mapping', 'string', 'iterable', 'odd'))}",
    ))  # fmt: skip


def attempt(path: Path, _seeds: Path) -> str:
    from tinker_local.chat.template import render

    template = path.read_bytes().decode("utf-8", "surrogatepass")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello, how are you? " * 20, "extra": [1, {"a": None}]},
        {"role": "assistant", "content": "Fine."},
    ]
    text = render(template, messages, add_generation_prompt=True, tools=None)
    assert isinstance(text, str)
    return "rendered"


FUZZER = Fuzzer(
    "tests.fuzz.templates", 500, lambda _: None, make, attempt, "tinker_local.errors:TinkerError"
)

if __name__ == "__main__":
    fuzzer_main(FUZZER, __doc__)
