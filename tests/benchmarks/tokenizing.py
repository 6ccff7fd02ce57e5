"""How fast texts become ids: the source's tokenizer as tinker-local runs it, ``tokenizers``, llama.cpp.

    python -m tests.benchmarks.tokenizing [TOKENIZER_JSON] [--tokens 150000]

Without a file the vocabulary is made up: byte-level BPE with Qwen's split and random merges. The time and
memory of opening are printed first, with the key and without it. Times are in ms, each the best of three.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library

from convert.vocabularies.byte_level import byte_characters
from convert.vocabularies.embedded import KEY
from convert.vocabularies.vocabulary import read_vocabulary
from tests.benchmarks.memory import resident
from tests.convert.vocabulary_files import write_small_model
from tests.random_checkpoints.kinds import QWEN2
from tinker_local import Tokenizer
from tinker_local.llama.model import Model

_PROSE = "The sea was calm that morning, and the fishermen had gone out before dawn; 27 boats were back. "
TEXTS = {
    "a question": _PROSE[:60],
    "a page": _PROSE * 30,
    "a book": _PROSE * 5000,
    "one word of 400,000 letters": "x" * 400_000,
    "400,000 spaces": " " * 400_000,
    "200,000 ideographs": "\u6f22" * 200_000,
}


def write_made_up(path: Path, n_tokens: int) -> None:
    """Write a tokenizer.json of so many tokens, whose merges join random letters."""
    rng = random.Random(0)
    tokens = list(byte_characters())
    known, merges = set(tokens), []
    parts = ["\u0120", *(token for token in tokens if token.isascii() and token.isalpha())]
    while len(tokens) < n_tokens:
        left, right = rng.choice(parts), rng.choice(parts)
        joined = left + right
        if "\u0120" in right or len(joined) > 10 or joined in known:
            continue
        known.add(joined)
        tokens.append(joined)
        parts.append(joined)
        merges.append([left, right])
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps({
        "version": "1.0", "normalizer": {"type": "NFC"}, "post_processor": None, "decoder": byte_level,
        "added_tokens": [{"id": n_tokens, "content": "<|endoftext|>", "special": True, "normalized": False,
                          "single_word": False, "lstrip": False, "rstrip": False}],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges},
    }, ensure_ascii=False))  # fmt: skip
    path.with_name("tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')


def best(work: Callable[[], Any]) -> float:
    """Return the seconds that the fastest of three runs takes."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def opened(path: Path, what: str) -> Model:
    """Open a model and tokenize a word; print the time and memory that each takes."""
    before, started = resident() / 1e6, time.perf_counter()
    model = Model(path, 0)
    middle, half = time.perf_counter(), resident() / 1e6
    Tokenizer(model).encode("word")
    after = resident() / 1e6
    print(
        f"{what}: opened in {1000 * (middle - started):.0f} ms and {half - before:.0f} MB, first text in "
        f"{1000 * (time.perf_counter() - middle):.0f} ms and {after - half:.0f} MB"
    )
    return model


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", nargs="?", type=Path)
    parser.add_argument("--tokens", type=int, default=150_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        if arguments.tokenizer is None:
            write_made_up(place / "tokenizer.json", arguments.tokens)
        else:
            place = arguments.tokenizer.parent
        library = Library.from_file(str(place / "tokenizer.json"))
        vocabulary = read_vocabulary(place, {}, library.get_vocab_size())
        print(
            f"{len(vocabulary.tokens):,} tokens; {KEY}: {len(str(vocabulary.metadata()[KEY])) / 1e6:.1f} MB"
        )
        plain = write_small_model(Path(directory) / "plain.gguf", vocabulary, without=(KEY,))
        whole = write_small_model(Path(directory) / "whole.gguf", vocabulary)
        llama, ours = opened(plain, "without the key"), opened(whole, "with the key")
        print(f"{'':30} {'characters':>10} {'tokens':>8} {'llama.cpp':>10} {'ours':>10} {'tokenizers':>10}")
        for name, text in TEXTS.items():
            encoders = {
                "llama.cpp": lambda text=text: llama.tokenize(text, add_special=True, parse_special=True),
                "ours": lambda text=text: ours.tokenize(text, add_special=True, parse_special=True),
                "tokenizers": lambda text=text: library.encode(text).ids,
            }
            times = " ".join(f"{1000 * best(encode):10.2f}" for encode in encoders.values())
            print(f"{name:30} {len(text):10,} {len(library.encode(text).ids):8,} {times}")


if __name__ == "__main__":
    main()
