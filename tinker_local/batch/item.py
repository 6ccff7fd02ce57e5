"""Item: one line of the input, parsed and checked."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NoReturn

from tinker_local.batch.lines import LONGEST, Line
from tinker_local.errors import BadRequestError

TEXTS = ("prompt", "messages", "tokens")
"""Keys for the text to continue or to score; a line has exactly one of them."""

_HEAD = re.compile(rb'\{"line": (\d{1,18}), ')  # how ``Item.head`` begins
_SHOWN = 1000  # characters that the output repeats of a line that is not JSON
_ALIKE = 0.85  # similarity (difflib's ratio) from which an unknown key counts as a misspelt one


@dataclass(frozen=True)
class Item:
    """One line of the input: what is asked, or why it cannot be answered.

    The answer repeats the whole item. So an output file shows by itself which input it belongs to,
    and how far an interrupted run came: ``is_begun_by`` recognises the item in a line of the output.

    Attributes:
        number: line number in the input, from 1.
        asked: the line's keys and values; the line of the output begins with them.
        end: offset in the input just behind the line, in bytes.
        problem: why the line cannot be answered; None if it can.
    """

    number: int
    asked: Mapping[str, Any]
    end: int
    problem: str | None = None

    @classmethod
    def of(cls, line: Line, known: frozenset[str], written: frozenset[str]) -> Item:
        """Parse and check a line; errors go to ``problem``.

        Args:
            line: the line.
            known: keys that have a meaning; all others are only repeated in the output.
            written: keys that the output uses; a line must not have them.
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
        """The beginning of the item's line in the output: number, keys and values, no closing brace."""
        return json.dumps({"line": self.number, **self.asked}).removesuffix("}").encode()

    def answer_line(self, answer: Mapping[str, Any]) -> bytes:
        """Return the item's line in the output; keys that the item has already are not repeated.

        Raises:
            ValueError: the answer has an infinity or a NaN, which JSON cannot express.
        """
        new = {key: value for key, value in answer.items() if key not in self.asked}
        return self.head + b", " + json.dumps(new, allow_nan=False).removeprefix("{").encode() + b"\n"

    def error_line(self, problem: str) -> bytes:
        """Return the item's line in the output with an error in place of the answer."""
        return self.answer_line({"error": problem})

    def is_begun_by(self, line: bytes) -> bool:
        """Whether a line of the output belongs to this item."""
        return line.startswith(self.head + b', "')

    def is_failed_in(self, line: bytes) -> bool:
        """Whether a line of the output is this item's error."""
        return line.startswith(self.head + b', "error": ')


def number_in(line: bytes) -> int | None:
    """Return the number that a line of an output begins with; None if it is no whole such line."""
    match = _HEAD.match(line)
    return int(match[1]) if match and line.endswith(b"}\n") else None


def _parse(line: Line) -> dict[str, Any]:
    if line.is_cut:
        raise BadRequestError(f"the line has more than {LONGEST:,} bytes; make it shorter")
    try:
        asked = json.loads(line.data, parse_constant=_refuse_constant)
        json.dumps(asked, allow_nan=False)  # finds 1e999, which json.loads reads as an infinity
    except RecursionError:
        raise BadRequestError("the line is JSON that is nested too deeply; flatten it") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are kinds of it
        raise BadRequestError(f"the line is not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise BadRequestError(f"the line is a JSON {type(asked).__name__}; it must be an object")
    return asked


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check(asked: Mapping[str, Any], known: frozenset[str], written: frozenset[str]) -> None:
    texts = [key for key in TEXTS if key in asked]
    for key in asked:
        if key in written:
            raise BadRequestError(f"the key {key!r} is reserved for the output; rename it")
        if key not in known and (near := _alike(key, known)):
            raise BadRequestError(
                f"the key {key!r} looks like a misspelt {near!r}; correct it, or choose another name"
            )
    if len(texts) != 1:
        raise BadRequestError(
            f"the line needs exactly one of {', '.join(TEXTS)}; it has {' and '.join(texts) or 'none'}"
        )
    _check_text(texts[0], asked[texts[0]])
    _check_images(texts[0], asked.get("images", []))


@lru_cache(maxsize=1024)  # lines have the same keys, and this takes longer than all else
def _alike(key: str, known: frozenset[str]) -> str | None:
    plain = key.casefold().replace("-", "_")
    return next(iter(difflib.get_close_matches(plain, known, n=1, cutoff=_ALIKE)), None)


def _check_text(key: str, value: Any) -> None:
    if key == "prompt" and not isinstance(value, str):
        raise BadRequestError(f"prompt is {_shown(value)}; it must be a string")
    if key == "messages" and not (
        isinstance(value, list) and value and all(isinstance(message, dict) for message in value)
    ):
        raise BadRequestError(
            f'messages is {_shown(value)}; it must be a list of {{"role": ..., "content": ...}}, not empty'
        )
    if key == "tokens" and not (isinstance(value, list) and all(type(token) is int for token in value)):
        raise BadRequestError(f"tokens is {_shown(value)}; it must be a list of token ids")


def _check_images(key: str, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(path, str) for path in value):
        raise BadRequestError(f"images is {_shown(value)}; it must be a list of paths or data URLs")
    if value and key == "tokens":
        raise BadRequestError("a line with tokens has no images; give a prompt or messages")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
