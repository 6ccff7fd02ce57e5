"""Texts on which llama.cpp's tokenizer would overflow the stack, or take minutes.

llama.cpp splits text into words by ``std::regex``, which recurses for every character of a word, of a
stretch of spaces or of symbols. A Python thread has a stack of 512 KB (macOS) to 8 MB (Linux). So a text
with a long stretch is tokenized on a thread whose stack is large enough. The ids are the same.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import TypeVar

from tinker_local.errors import BadRequestError

MOST_CHARACTERS = 500_000
"""Longest stretch that is tokenized: its stack takes some 300 MB."""

_ANYWHERE = 500  # characters of a stretch that fit any thread's stack
_STACK_BYTES = 640  # for each character; measured are 250 to 600, GCC's library on x86-64
_MARGIN = 1 << 20
_NOT_A_WORD = re.compile(r"[\x00-\x1f!-@\[-`{-\x7f]+")  # ASCII without letters and spaces
_NOT_A_SPACE = re.compile(r"\S+")
_QUADRATIC = re.compile(r"\d{2000}")  # the pattern of superbpe looks ahead from every digit
_stack_size_lock = threading.Lock()
_T = TypeVar("_T")


def longest_run(text: str) -> int:
    """Return an upper bound, in characters, for the longest word that llama.cpp splits a text into."""
    if len(text) <= _ANYWHERE:
        return len(text)
    stretches = (text.split(), _NOT_A_SPACE.split(text), _NOT_A_WORD.split(text))
    return 1 + max(len(stretch) for parts in stretches for stretch in parts)


def tokenizing(text: str, splitter: str | None, work: Callable[[], _T]) -> _T:
    """Run ``work``, which tokenizes a text, on a thread with a large enough stack; return what it returns.

    Args:
        text: the text.
        splitter: ``tokenizer.ggml.pre`` of the model.
        work: tokenizes the text.

    Raises:
        BadRequestError: the text has too long a stretch without a break.
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
        except BaseException as error:  # raised again in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, name="tinker-local-tokenizer", daemon=True)
    with _stack_size_lock:
        usual = threading.stack_size(-(-n_bytes // 65536) * 65536)
        try:
            thread.start()
        except RuntimeError as error:
            raise BadRequestError(
                f"there is no memory for a stack of {n_bytes >> 20} MB, which so long a stretch without a "
                "break needs; encode the text in parts"
            ) from error
        finally:
            threading.stack_size(usual)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
