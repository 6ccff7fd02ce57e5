"""Chat templates: Jinja text from a model file, run as the untrusted code it is.

The environment is the one templates are written for (Hugging Face's: trimmed blocks, loop controls,
``raise_exception``, ``strftime_now``, ``tojson`` without HTML escapes, the ``generation`` tag), in
Jinja's immutable sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tinker_local.errors import BadRequestError


def render(template: str, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
    """Return the text a template makes of a conversation.

    Raises:
        BadRequestError: the template is malformed, refuses the messages, or does what the sandbox
            forbids.
    """
    try:
        return _compile(template).render(messages=list(messages), **variables)
    except jinja2.TemplateError as error:
        raise BadRequestError(f"the chat template refuses these messages: {error}") from error
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise BadRequestError(
            f"the chat template fails on these messages ({type(error).__name__}: {error}); they are "
            "expected to be dicts with 'role' and 'content'"
        ) from error


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant said; here it only renders it."""

    tags = {"generation"}  # noqa: RUF012 (the name and the kind are Jinja's)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=32)
def _compile(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return environment.from_string(template)


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, indent=indent, **{"ensure_ascii": False, **options})


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
