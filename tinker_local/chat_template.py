"""Chat templates: Jinja text from a model file, run as untrusted code.

The environment is the one templates are written for (Hugging Face's: trimmed blocks, loop controls,
``raise_exception``, ``strftime_now``, ``tojson`` without HTML escapes, the ``generation`` tag), in
Jinja's immutable sandbox, with limits on time, memory and output.
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

from tinker_local.errors import BadRequestError
from tinker_local.template_limits import LimitedEnvironment, Limits, limited

MOST_CHARACTERS = 1 << 20
"""The longest template allowed; published ones have up to some tens of thousands of characters."""

_END_OF_CONTENT = "<<end of what is to be continued>>"


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
            pieces = _compile(template).generate(messages=list(messages), **variables)
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


def render_open(template: str, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
    """Return the text up to the end of the last message's content, for the model to continue.

    White space at its end is stripped where the template strips it.

    Raises:
        BadRequestError: as in ``render``; or the last message has no text, or the template leaves it out.
    """
    content = messages[-1].get("content") if messages and isinstance(messages[-1], Mapping) else None
    if not isinstance(content, str):
        raise BadRequestError("continue_final_message needs a last message whose content is a str")
    marked = {**messages[-1], "content": f"{content}{_END_OF_CONTENT} "}
    text = render(template, [*messages[:-1], marked], **variables)
    shown, mark, rest = text.rpartition(_END_OF_CONTENT)
    if not mark:
        raise BadRequestError(
            "continue_final_message cannot be used: the chat template leaves out the last message"
        )
    return shown if rest.startswith(" ") else shown.rstrip()


class _Generation(Extension):
    """The tag ``{% generation %}``: it marks what the assistant said, for training, and has no effect."""

    tags = {"generation"}  # noqa: RUF012 (the name and the kind are Jinja's)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


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
    environment.globals["strftime_now"] = _strftime_now
    return environment.compile_limited(template)


def _strftime_now(format: str) -> str:
    if len(format) > 1000:
        raise jinja2.TemplateError("strftime_now was given a format of more than 1,000 characters")
    return datetime.now().strftime(format)


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, indent=indent, **{"ensure_ascii": False, **options})


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
