"""How the sampling surface of one package differs from another's, found by walking both."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import types as python_types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

import numpy as np
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from tinker_local.service_only import REFUSES, ServiceOnly

MISSING = "missing"


def differences(name: str, ours: Any, theirs: Any) -> Iterator[tuple[str, str]]:
    """Yield what differs, as (where, what is there and here)."""
    if ours is theirs or (isinstance(ours, type) and issubclass(ours, ServiceOnly)):
        return  # the latter says that it is the service's
    if isinstance(theirs, type) and issubclass(theirs, Enum):
        yield from _compare(name, {e.name: e.value for e in ours}, {e.name: e.value for e in theirs})
    elif isinstance(theirs, type) and issubclass(theirs, BaseException):
        yield from _errors(name, ours, theirs)
    elif isinstance(theirs, type) and (issubclass(theirs, BaseModel) or dataclasses.is_dataclass(theirs)):
        yield from _compare(name, _fields(ours), _fields(theirs))
        yield from _methods(name, ours, theirs)
    elif isinstance(theirs, type):
        yield from _methods(name, ours, theirs)
    elif spelled(ours) != spelled(theirs):
        yield name, f"{spelled(theirs)} there, {spelled(ours)} here"


def _compare(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What they have must be in ours, in the same order; more of ours must come after it or by name."""
    shared = [key for key in theirs if key in ours]
    if shared != [key for key in ours if key in theirs]:
        yield name, f"order {list(theirs)} there, {list(ours)} here"
    for key, value in theirs.items():
        found = ours.get(key, MISSING)
        if found != value:
            yield f"{name}.{key}", f"{value} there, {found} here"


def _errors(name: str, ours: Any, theirs: Any) -> Iterator[tuple[str, str]]:
    def tree(error: Any) -> list[str]:
        return [base.__name__ for base in error.__mro__]

    if tree(ours) != tree(theirs):
        yield name, f"{tree(theirs)} there, {tree(ours)} here"
    if hasattr(theirs, "status_code") and ours.status_code != theirs.status_code:
        yield f"{name}.status_code", f"{theirs.status_code} there, {ours.status_code} here"


def _fields(cls: Any) -> dict[str, Any]:
    if issubclass(cls, BaseModel):
        fields = cls.model_fields.items()
        return {key: (spelled(field.annotation), _default(field.default)) for key, field in fields}
    hints = typing.get_type_hints(cls, globalns=cls.__init__.__globals__)  # __module__ may be another
    fields = [field for field in dataclasses.fields(cls) if field.name in hints]
    return {field.name: (spelled(hints[field.name]), _default(field.default)) for field in fields}


def _default(value: Any) -> Any:
    if value is dataclasses.MISSING or value is PydanticUndefined or value is inspect.Parameter.empty:
        return "no default"
    if isinstance(value, tuple) and all(isinstance(item, type) for item in value):
        return tuple(item.__name__ for item in value)
    return value


def public(cls: Any) -> dict[str, Any]:
    """The public methods and properties that a class or its bases of the same package define."""
    package = cls.__module__.partition(".")[0]
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] == package:
            found |= {
                key: inspect.getattr_static(cls, key) for key in vars(base) if not key.startswith("_")
            }
    if getattr(cls.__init__, "__module__", "").partition(".")[0] == package:
        found["__init__"] = cls.__init__
    return found


def _methods(name: str, ours: Any, theirs: Any) -> Iterator[tuple[str, str]]:
    for key, member in public(theirs).items():
        if key == "__init__" and dataclasses.is_dataclass(theirs) and theirs.__dataclass_params__.init:
            continue  # made of the fields
        if not callable(getattr(theirs, key, None)) or isinstance(member, property):
            if not hasattr(ours, key) and key not in _fields_of(ours):
                yield f"{name}.{key}", "missing here"
            continue
        own = getattr(ours, key, None)
        if own is None:
            yield f"{name}.{key}", "missing here"
        elif not hasattr(own, REFUSES):
            yield from _signature(f"{name}.{key}", own, getattr(theirs, key))


def _fields_of(cls: Any) -> Any:
    return getattr(cls, "model_fields", ())


def _signature(name: str, ours: Any, theirs: Any) -> Iterator[tuple[str, str]]:
    theirs = inspect.unwrap(theirs)

    def parameters(function: Any) -> dict[str, Any]:
        hints = _hints(function)
        return {
            p.name: (spelled(hints.get(p.name)), _default(p.default))
            for p in inspect.signature(function).parameters.values()
            if p.name not in ("self", "cls", "_holder")
        }

    yield from _compare(name, parameters(ours), parameters(theirs))
    one, other = (spelled(_hints(f).get("return")) for f in (ours, theirs))
    if not set(one.split(" | ")) <= set(other.split(" | ")):
        yield f"{name} ->", f"{other} there, {one} here"
    if inspect.iscoroutinefunction(ours) != inspect.iscoroutinefunction(theirs):
        yield name, "a coroutine in one of the two only"


def _hints(function: Any) -> dict[str, Any]:
    """Type hints; what a package imports for type checkers only keeps its name."""
    function = getattr(function, "__func__", function)
    try:
        return typing.get_type_hints(function)
    except NameError:
        names = {**function.__globals__}
        while True:
            try:
                return typing.get_type_hints(function, globalns=names)
            except NameError as error:
                names[error.name] = _StandIn(error.name, (), {})


class _StandIn(type):
    """A class, or a module of classes, that is known by its name only."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _StandIn(name, (), {})


_SAME = {"AwaitableConcurrentFuture": "APIFuture", "_GenericAlias": "type"}


def spelled(hint: Any) -> str:
    """Write a type in one way, whatever of typing, the builtins and numpy it was written with."""
    if hint is None or hint is type(None):
        return "None"
    if hint is Any or hint is inspect.Parameter.empty:
        return "Any"
    if isinstance(hint, str | int):
        return repr(hint)
    if isinstance(hint, list):
        return f"[{', '.join(map(spelled, hint))}]"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return spelled(arguments[0])
    if origin in (typing.Union, python_types.UnionType):
        flat = {part for argument in arguments for part in spelled(argument).split(" | ")}
        return " | ".join(sorted(flat))
    if origin is np.ndarray or hint is np.ndarray:
        return "ndarray"
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    name = _name(origin or hint)
    return f"{name}[{', '.join(map(spelled, arguments))}]" if arguments else name


def _name(cls: Any) -> str:
    names = {collections.abc.Sequence: "Sequence", collections.abc.Mapping: "Mapping"}
    name = names.get(cls) or getattr(cls, "__name__", str(cls))
    return _SAME.get(name, name)
