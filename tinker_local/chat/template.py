"""Chat templates: Jinja text from a model file, run as untrusted code.

The environment is the one templates are written for (Hugging Face's: trimmed blocks, loop controls,
``raise_exception``, ``strftime_now``, ``tojson`` without HTML escapes, the ``generation`` tag), in
Jinja's immutable sandbox, with limits on time, memory and output.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from tinker_local.chat.limits import LimitedEnvironment, Limits, limited
from tinker_local.errors import BadRequestError

MOST_CHARACTERS = 1 << 20
"""The longest template allowed; published ones have up to some tens of thousands of characters."""

_tags = threading.local()


def render(template: str, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
    """Return the text of a conversation by a template.

    Raises:
        BadRequestError: the template is malformed, refuses the messages, breaks the sandbox's rules, or
            takes more time, memory or output than ``Limits`` allows.
    """
    if len(template) > MOST_CHARACTERS:
        raise BadRequestError(
            f"the chat template has {len(template):,} characters; at most {MOST_CHARACTERS:,} are allowed"
        )
    try:
        with limited(Limits.of(messages, variables)) as limits:
            pieces = _compile(template).generate(**{**variables, "messages": list(messages)})
            return "".join(limits.counted(pieces))
    except jinja2.TemplateError as error:
        raise BadRequestError(f"the chat template refuses these messages: {error}") from error
    except SyntaxError as error:  # of the Python that Jinja makes of it
        raise BadRequestError(f"the chat template cannot be compiled: {error.msg}") from error
    except (RecursionError, MemoryError) as error:
        raise BadRequestError(
            f"the chat template is nested too deeply or needs too much memory ({type(error).__name__})"
        ) from error
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError) as error:
        raise BadRequestError(
            f"the chat template fails on these messages ({type(error).__name__}: {error}); each must be a "
            "dict with 'role' and 'content'"
        ) from error


@contextmanager
def enclosing(start: str, end: str) -> Iterator[None]:
    """Write ``start`` and ``end`` around what generation tags enclose, in templates of this thread."""
    _tags.marks = start, end
    try:
        yield
    finally:
        _tags.marks = "", ""


def clock() -> Callable[[str], str]:
    """Return a ``strftime_now`` whose time stands still, for renderings that must be equal."""
    now = datetime.now()

    def strftime_now(format: str) -> str:
        if len(format) > 1000:
            raise jinja2.TemplateError("strftime_now was given a format of more than 1,000 characters")
        return now.strftime(format)

    return strftime_now


class _Generation(Extension):
    """The tag ``{% generation %}``: it encloses what the assistant says, for masks in training.

    The body is a scope, as in transformers: what is set inside does not reach the outside.
    """

    tags = {"generation"}  # noqa: RUF012 (the name and the kind are Jinja's)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("enclose"), [], [], body).set_lineno(line)

    def enclose(self, caller: Callable[[], str]) -> str:
        start, end = getattr(_tags, "marks", ("", ""))
        return f"{start}{caller()}{end}"


@lru_cache(maxsize=32)
def _compile(template: str) -> jinja2.Template:
    environment = LimitedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # or constants would be computed here, before there are limits
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.add_filter("tojson", _to_json)
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda format: clock()(format)
    return environment.compile_limited(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
