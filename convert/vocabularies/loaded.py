"""A program: load a GGUF file's vocabulary in llama.cpp and tokenize the texts that come in.

It is run as a process of its own, since llama.cpp ends the process at some files. Standard input has a JSON
list of texts, standard output a table: ``eog``, the ids that end a generation; and for each text its ids with
special tokens read as such (``parsed``), and as plain text (``plain``).
"""

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import llama_cpp


def main() -> None:
    """Tokenize with the vocabulary of the file that the first argument names."""
    silent = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p())
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(os.fsencode(sys.argv[1]), params)
    if not model:
        sys.exit("llama.cpp does not load the vocabulary")
    json.dump(tokenize_all(model, json.load(sys.stdin)), sys.stdout)


def tokenize_all(model: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Return the table for texts with the vocabulary of a model that llama.cpp has loaded."""
    vocab = llama_cpp.llama_model_get_vocab(model)
    encoded = [text.encode() for text in texts]
    ids = range(llama_cpp.llama_vocab_n_tokens(vocab))
    return {
        "eog": [i for i in ids if llama_cpp.llama_vocab_is_eog(vocab, i)],
        "parsed": [tokenize(vocab, text, True) for text in encoded],
        "plain": [tokenize(vocab, text, False) for text in encoded],
    }


def tokenize(vocab: Any, text: bytes, parse_special: bool) -> list[int]:
    """Return the ids of a text, with BOS and EOS where the file says so."""
    room = len(text) + 8
    tokens = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(vocab, text, len(text), tokens, room, True, parse_special)
    return list(tokens[:count])


if __name__ == "__main__":
    main()
