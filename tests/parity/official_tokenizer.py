"""SmolLM2's tokenizer as transformers has it.

The checkpoint's own tokenizer.json is not in any package, so its parts (a byte-level BPE behind a split
of single digits) are put together with the `tokenizers` library from the GGUF file's tokens and merges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import tokenizers
import transformers

from convert.gguf.file import read_head


def official_tokenizer(path: Path) -> Any:
    """Return a ``PreTrainedTokenizerFast`` of the vocabulary in a GGUF file of SmolLM2."""
    values: Any = read_head(path).metadata
    assert values["tokenizer.ggml.pre"] == "smollm"
    tokens, merges = (
        [text.decode() for text in values[f"tokenizer.ggml.{key}"].texts()] for key in ("tokens", "merges")
    )
    model = tokenizers.models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[tuple(pair.split(" ")) for pair in merges],
    )
    fast = tokenizers.Tokenizer(model)
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    fast.decoder = tokenizers.decoders.ByteLevel()
    kinds = values["tokenizer.ggml.token_type"].values
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == gguf.TokenType.CONTROL]
    fast.add_special_tokens(control)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast,
        bos_token=tokens[values["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[values["tokenizer.ggml.eos_token_id"]],
        chat_template=values["tokenizer.chat_template"],
    )
