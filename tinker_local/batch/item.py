"""What a line asks for, or what is wrong with it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from tinker_local.batch.lines import LONGEST, Line
from tinker_local.errors import BadRequestError

TEXTS = ("prompt", "messages", "tokens")
"""Keys of which a line has one: what is continued or scored."""

_SHOWN = 1000  # characters of a line that is not JSON
_ALIKE = 0.85  # how near a key must be to one of ours to be taken for a misspelt one


@dataclass(frozen=True)
class Item:
    """A line of the input.

    Attributes:
        number: its line in the input, from 1.
        asked: its keys and values, which the line of the output begins with.
        end: bytes of the input up to its end.
        problem: why it is not computed.
    """

    number: int
    asked: Mapping[str, Any]
    end: int
    problem: str | None = None

    @classmethod
    def of(cls, line: Line, known: frozenset[str], written: frozenset[str]) -> Item:
        """Read a line.

        Args:
            line: the line.
            known: keys that mean something; others are carried through.
            written: keys that the output has, which a line must not.
        """
        try:
            asked = _parse(line)
        except BadRequestError as error:
            text = line.data.decode("utf-8", "replace")[:_SHOWN]
            return cls(line.number, {"input": text}, line.end, str(error))
        try:
            _check(asked, known, written)
        except BadRequestError as error:
            asked = {key: value for key, value in asked.items() if key not in written}
            return cls(line.number, asked, line.end, str(error))
        return cls(line.number, asked, line.end)

    @cached_property
    def head(self) -> bytes:
        """How its line in the output begins: its number and all that it says, without the last brace."""
        return json.dumps({"line": self.number, **self.asked}).removesuffix("}").encode()

    def answered(self, answer: Mapping[str, Any]) -> bytes:
        """Return its line in the output.

        Raises:
            ValueError: a number is none that JSON has.
        """
        new = {key: value for key, value in answer.items() if key not in self.asked}
        return self.head + b", " + json.dumps(new, allow_nan=False).removeprefix("{").encode() + b"\n"

    def failed(self, problem: str) -> bytes:
        """Return its line in the output, if it cannot be computed."""
        return self.answered({"error": problem})

    def is_begun_by(self, line: bytes) -> bool:
        """Whether a line of the output is the answer to this one."""
        return line.startswith(self.head + b', "')

    def is_failed_in(self, line: bytes) -> bool:
        """Whether its line of the output has an error in the answer's place."""
        return line.startswith(self.head + b', "error": ')


def _parse(line: Line) -> dict[str, Any]:
    if line.is_cut:
        raise BadRequestError(f"the line has more than {LONGEST:,} bytes")
    try:
        asked = json.loads(line.data, parse_constant=_refuse_constant)
        json.dumps(asked, allow_nan=False)  # 1e999 is read as an infinity
    except RecursionError:
        raise BadRequestError("the line is not JSON that can be used: it is nested too deeply") from None
    except ValueError as error:  # of which those of json and of UTF-8 are kinds
        raise BadRequestError(f"the line is not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise BadRequestError(f"the line is a JSON {type(asked).__name__}; it must be an object")
    return asked


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _check(asked: Mapping[str, Any], known: frozenset[str], written: frozenset[str]) -> None:
    texts = [key for key in TEXTS if key in asked]
    for key in asked:
        if key in written:
            raise BadRequestError(f"{key!r} is a key of the output, and not for the input; rename it")
        near = difflib.get_close_matches(_plain(key), known, n=1, cutoff=_ALIKE)
        if near and key not in known:
            raise BadRequestError(f"{key!r} is no key that means something; is it {near[0]!r}?")
    if len(texts) != 1:
        raise BadRequestError(
            f"the line has {' and '.join(texts) or 'none'} of {', '.join(TEXTS)}; it needs one"
        )
    _check_text(texts[0], asked[texts[0]])


def _plain(key: str) -> str:
    return key.casefold().replace("-", "_")


def _check_text(key: str, value: Any) -> None:
    if key == "prompt" and not isinstance(value, str):
        raise BadRequestError(f"prompt is {_shown(value)}; it must be a text")
    if key == "messages" and not (
        isinstance(value, list) and value and all(isinstance(message, dict) for message in value)
    ):
        raise BadRequestError(
            f'messages is {_shown(value)}; it must be a list of {{"role": ..., "content": ...}}'
        )
    if key == "tokens" and not (isinstance(value, list) and all(type(token) is int for token in value)):
        raise BadRequestError(f"tokens is {_shown(value)}; it must be a list of token ids")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
