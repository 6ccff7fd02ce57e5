"""Texts without a break: llama.cpp's tokenizer needs a stack that grows with them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.fuzz.gguf_parts import take_apart
from tests.long import few
from tests.random_model import write_random_model
from tinker_local import BadRequestError, Tokenizer
from tinker_local.llama.long_texts import MOST_CHARACTERS, longest_run
from tinker_local.llama.model import load_model

SPLITTERS = ("gpt-2", "gpt-4o", "tekken", "deepseek-v3", "youtu", "bloom")
STRETCHES = {"letters": "x", "spaces": " ", "symbols": "!", "ideographs": "漢", "new lines": "\r\n"}


def tokenizer_with(splitter: str, directory: Path) -> Tokenizer:
    parts = take_apart(write_random_model(directory / "model.gguf").read_bytes())
    key = parts.key("tokenizer.ggml.pre")
    assert key is not None
    key.value = splitter.encode()
    path = directory / f"{splitter}.gguf"
    path.write_bytes(parts.pack())
    return Tokenizer(load_model(path, 0))


@pytest.mark.parametrize("splitter", few(2, SPLITTERS))
def test_long_stretches(splitter: str, tmp_path: Path) -> None:
    """Each character is as many tokens as it has bytes, so the number of ids says that all is there."""
    tokenizer = tokenizer_with(splitter, tmp_path)
    for stretch in STRETCHES.values():
        text = stretch * (100_000 // len(stretch))
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert len(tokenizer.encode(text)) == len(text.encode())


def test_on_threads_with_little_stack(tmp_path: Path) -> None:
    """As macOS has them."""
    tokenizer = tokenizer_with("gpt-4o", tmp_path)
    counts: list[int] = []
    usual = threading.stack_size(512 * 1024)
    try:
        threads = [
            threading.Thread(target=lambda n=n: counts.append(len(tokenizer.encode("x" * n))))  # type: ignore[misc]
            for n in (499, 500, 501, 5000, 50_000)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert threading.stack_size() == 512 * 1024
    finally:
        threading.stack_size(usual)
    assert sorted(counts) == [499, 500, 501, 5000, 50_000]


def test_too_long(tmp_path: Path) -> None:
    tokenizer = tokenizer_with("gpt-4o", tmp_path)
    with pytest.raises(BadRequestError, match="without a break"):
        tokenizer.encode("x" * (MOST_CHARACTERS + 1))
    with pytest.raises(BadRequestError, match="digits in a row"):
        tokenizer_with("superbpe", tmp_path).encode("1" * 3000)


def test_half_a_character(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="surrogate"):
        tokenizer_with("gpt-2", tmp_path).encode("a\ud800")


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("word " * 1000 + ".", 5000),
        ("word, " * 1000, 6),
        ("a" * 700 + " b", 703),
        ("." * 600 + "a", 602),
        (" " * 800, 801),
        ("ab\n" * 400, 3),
    ],
)
def test_longest_run(text: str, length: int) -> None:
    assert length <= longest_run(text) <= length + 2
