"""A Jinja sandbox with limits on a template's time, memory and output.

Jinja compiles a template to Python, so no interpreter counts its steps. The sandbox counts instead where
work is done: each turn of a loop, each call, filter, test and operator looks at the clock and adds the size
of its result to a total. Steps with a huge result by a number in the template (``"x" * 10**9``,
``center(10**9)``) are refused before they run.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

_SECONDS = 3.0  # of the thread's computing; templates take milliseconds
_BYTES = 256 << 20  # of all that is built on the way, counted again each time it is built
_OUTPUT = 64 << 20  # characters
_ITEMS = 1 << 20  # in nested lists and tables
_WIDTH = 1 << 12  # columns, digits, spaces of an indentation
_BITS = 1 << 12  # of a whole number
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "indent", "round", "tojson"})
_UNBOUNDED = ("lipsum",)  # invents text
_SLOW_FILTERS = ("urlize", "pprint", "striptags", "wordwrap")
_LARGE_FIELD = re.compile(r"\{[^{}]*(\d{4,}|\{)|%[^a-zA-Z%]*(\d{4,}|\*)")  # of "{:9999}" and "%9999d"

current = threading.local()


class LimitError(SecurityError):
    """A template exceeded a limit."""


class Limits:
    """The time, memory and output that one rendering has left.

    Args:
        n_given: bytes of the messages and variables, which a template may copy about a hundred times.
    """

    def __init__(self, n_given: int = 0) -> None:
        self._end = time.thread_time() + _SECONDS
        self._bytes = _BYTES + 100 * n_given
        self._output = _OUTPUT

    @classmethod
    def of(cls, *given: Any) -> Limits:
        """Return the limits for a template with these messages and variables."""
        return cls(_measure(given)[0])

    def tick(self) -> None:
        """Raise LimitError if the time is up."""
        if time.thread_time() > self._end:
            raise LimitError(f"it runs for more than {_SECONDS:g} s")

    def made(self, value: Any) -> Any:
        """Count the size of a new value, and return the value."""
        self.tick()
        kind = type(value)
        if kind in (str, bytes) or issubclass(kind, str):
            self._spend(sys.getsizeof(value))
        elif kind in (list, tuple, dict, set):
            self._spend(_measure(value)[0])
        elif kind is int and value.bit_length() > 2 * _BITS:
            raise LimitError(f"it computes with numbers of {value.bit_length():,} bits")
        return value

    def room_for(self, n: int) -> None:
        """Raise LimitError if a text or list of ``n`` characters or items would be too much."""
        if n > self._bytes:
            raise LimitError(f"it builds more than {_BYTES >> 20} MB")

    def counted(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the pieces of the output, counting them."""
        for piece in pieces:
            self._output -= len(piece)
            if self._output < 0:
                raise LimitError(f"it writes more than {_OUTPUT:,} characters")
            self.tick()
            yield piece

    def _spend(self, n: int) -> None:
        self._bytes -= n
        if self._bytes < 0:
            raise LimitError(f"it builds more than {_BYTES >> 20} MB")


@contextmanager
def limited(limits: Limits) -> Iterator[Limits]:
    """Apply limits to the templates that this thread renders in the block."""
    before = getattr(current, "limits", None)
    current.limits = limits
    try:
        yield limits
    finally:
        current.limits = before


def _limits() -> Limits:
    limits: Limits | None = getattr(current, "limits", None)
    return limits or Limits()


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """The environment of templates; they keep to the limits of the thread that renders them."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_finalize, **options)
        for name in _UNBOUNDED:
            self.globals.pop(name)
        for name in _SLOW_FILTERS:
            self.filters.pop(name)
        self.filters["sum"] = _sum
        for name, function in list(self.filters.items()):
            self.add_filter(name, function)

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Add a filter that keeps to the limits."""
        self.filters[name] = _guarded(name, function)

    def compile_limited(self, source: str) -> jinja2.Template:
        """Compile a template whose loops, macros and literals keep to the limits."""
        tree = self.parse(source)
        for node in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
            node.body.insert(0, nodes.ExprStmt(_call("tick", node), lineno=node.lineno))  # type: ignore[attr-defined]
        self._count_made(tree)
        tree.set_environment(self)
        return self.from_string(tree)

    def tick(self) -> None:
        """Look at the clock; compiled templates call this in loops."""
        _limits().tick()

    def made(self, value: Any) -> Any:
        """Count a list, a table or joined texts; compiled templates call this."""
        return _limits().made(value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute ``left operator right``."""
        _refuse_growth(operator, left, right)
        return _limits().made(super().call_binop(context, operator, left, right))

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function; its parameters have names that no template can give as keywords."""
        limits = _limits()
        limits.tick()
        name, owner = getattr(__obj, "__name__", ""), getattr(__obj, "__self__", None)
        if owner is self and name in ("tick", "made"):
            return __obj(*args)
        _refuse_arguments(name, owner, args, kwargs)
        return limits.made(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return a replacement of a text's method ``format``; None for other values."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and _LARGE_FIELD.search(value.__self__):
            raise LimitError("it formats with a width of more than 999")
        return wrapped

    def _count_made(self, node: nodes.Node) -> None:
        """Wrap each list, table and ``a ~ b`` in a call of ``made``, except targets of ``set``."""
        for name, value in node.iter_fields():
            values = value if isinstance(value, list) else [value]
            for index, child in enumerate(values):
                if not isinstance(child, nodes.Node):
                    continue
                self._count_made(child)
                is_made = isinstance(child, nodes.List | nodes.Dict | nodes.Concat) or (
                    isinstance(child, nodes.Tuple) and child.ctx == "load"
                )
                if is_made and name != "target":
                    counted = _call("made", child, child)
                    if isinstance(value, list):
                        value[index] = counted
                    else:
                        setattr(node, name, counted)


def _call(name: str, node: nodes.Node, *arguments: nodes.Node) -> nodes.Call:
    function = nodes.EnvironmentAttribute(name)
    return nodes.Call(function, list(arguments), [], None, None, lineno=node.lineno)


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that keeps to the limits, and gets context and environment as before."""
    passed = int(hasattr(function, "jinja_pass_arg"))

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        limits = _limits()
        limits.tick()
        values = args[passed:]
        _refuse_arguments(name, values[0] if values else None, values[1:], kwargs)
        return limits.made(function(*args, **kwargs))

    return guarded


def _refuse_arguments(name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    given = (*args, *kwargs.values())
    if name in _PADDING:
        for number in given:
            if (isinstance(number, int) and abs(number) > _WIDTH) or len(str(number)[:_WIDTH]) >= _WIDTH:
                raise LimitError(f"{name} is given a width of more than {_WIDTH:,}")
    elif name == "replace" and isinstance(value, str) and len(args) >= 2:
        old, new = str(args[0]), str(args[1])
        _limits().room_for(len(value) + value.count(old) * len(new))
    elif name == "join":
        separator = value if args and isinstance(value, str) and not isinstance(args[0], str) else args[:1]
        items = args[0] if separator is value and args else value
        if isinstance(items, list | tuple):
            _limits().room_for(len(items) * len(str(separator)))
    elif name == "format" and isinstance(value, str) and _LARGE_FIELD.search(value):
        raise LimitError("it formats with a width of more than 999")
    elif name == "translate":
        raise LimitError("it calls translate, which is not allowed")


def _refuse_growth(operator: str, left: Any, right: Any) -> None:
    if operator == "*":
        for items, n in ((left, right), (right, left)):
            if isinstance(items, str | bytes | list | tuple) and isinstance(n, int):
                _limits().room_for(8 * len(items) * max(0, n))
        if _bits(left) + _bits(right) > _BITS:
            raise LimitError(f"it computes with numbers of more than {_BITS:,} bits")
    elif operator == "**" and _bits(left) * (right if isinstance(right, int) else 1) > _BITS:
        raise LimitError(f"it computes with numbers of more than {_BITS:,} bits")
    elif operator == "%" and isinstance(left, str | bytes) and _LARGE_FIELD.search(str(left)):
        raise LimitError("it formats with a width of more than 999")


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _measure(value: Any) -> tuple[int, int]:
    """Return the bytes and the items of nested lists and tables; shared parts count each time."""
    size, n, rest = 0, 0, [value]
    while rest:
        item = rest.pop()
        n += 1
        if n > _ITEMS:
            raise LimitError(f"it has lists or tables of more than {_ITEMS:,} items")
        size += sys.getsizeof(item) if isinstance(item, str | bytes) else 64
        if isinstance(item, Mapping):
            rest.extend(item.keys())
            rest.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            rest.extend(item)
    return size, n


def _finalize(value: Any) -> Any:
    """Count a value that the template writes, and return its text."""
    limits = _limits()
    return limits.made(value if isinstance(value, str) else str(limits.made(value)))


@jinja2.pass_environment
def _sum(
    environment: jinja2.Environment, iterable: Iterable[Any], attribute: Any = None, start: Any = 0
) -> Any:
    limits, total, get = _limits(), start, make_attrgetter(environment, attribute)
    for item in iterable:
        total = limits.made(total + (item if attribute is None else get(item)))
    return total
