"""Texts that llama.cpp's tokenizer would overflow the stack on, or take minutes for.

It splits text into words by ``std::regex``, which calls itself for every character of a word, of a stretch
of spaces or of symbols. A Python thread has a stack of 512 KB (macOS) to 8 MB (Linux), so a text with a
long stretch is tokenized on a thread that has a stack large enough for it. The ids are the same.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import TypeVar

from tinker_local.errors import BadRequestError

MOST_CHARACTERS = 500_000
"""Of one stretch: what fits a stack of some 300 MB."""

_ANYWHERE = 500  # characters of a stretch that fit any thread's stack
_STACK_BYTES = 640  # for each character; measured are 250 to 600, GCC's library on x86-64
_MARGIN = 1 << 20
_NOT_A_WORD = re.compile(r"[\x00-\x1f!-@\[-`{-\x7f]+")  # all that is ASCII, less letters and spaces
_NOT_A_SPACE = re.compile(r"\S+")
_QUADRATIC = re.compile(r"\d{2000}")  # the pattern of superbpe looks ahead from every digit
_stack_size_lock = threading.Lock()
_T = TypeVar("_T")


def longest_run(text: str) -> int:
    """Return a bound for the longest match of any pattern by which llama.cpp splits text, in characters."""
    if len(text) <= _ANYWHERE:
        return len(text)
    stretches = (text.split(), _NOT_A_SPACE.split(text), _NOT_A_WORD.split(text))
    return 1 + max(len(stretch) for parts in stretches for stretch in parts)


def tokenizing(text: str, splitter: str | None, work: Callable[[], _T]) -> _T:
    """Return what ``work`` returns, run where the stack is large enough to tokenize a text.

    Args:
        text: what is tokenized.
        splitter: ``tokenizer.ggml.pre`` of the model.
        work: tokenizes it.

    Raises:
        BadRequestError: a stretch of it is too long.
    """
    length = longest_run(text)
    if length > MOST_CHARACTERS:
        raise BadRequestError(
            f"the text has a stretch of {length:,} characters without a break, and llama.cpp can tokenize "
            f"{MOST_CHARACTERS:,}; encode it in parts"
        )
    if splitter == "superbpe" and _QUADRATIC.search(text):
        raise BadRequestError(
            "the text has more than 2,000 digits in a row, for which llama.cpp's tokenizer for superbpe "
            "takes seconds to hours; encode it in parts"
        )
    return work() if length <= _ANYWHERE else _on_large_stack(length * _STACK_BYTES + _MARGIN, work)


def _on_large_stack(n_bytes: int, work: Callable[[], _T]) -> _T:
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # is raised where the thread is waited for
            errors.append(error)

    thread = threading.Thread(target=run, name="tinker-local-tokenizer", daemon=True)
    with _stack_size_lock:
        usual = threading.stack_size(-(-n_bytes // 65536) * 65536)
        try:
            thread.start()
        except RuntimeError as error:
            raise BadRequestError(
                f"there is no memory for the {n_bytes >> 20} MB of stack that a text with so long a "
                "stretch needs; encode it in parts"
            ) from error
        finally:
            threading.stack_size(usual)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
