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


def official_tokenizer(path: Path) -> Any:
    """Return a ``PreTrainedTokenizerFast`` of the vocabulary in a GGUF file of SmolLM2."""
    fields = gguf.GGUFReader(path).fields
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    model = tokenizers.models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    fast = tokenizers.Tokenizer(model)
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    fast.decoder = tokenizers.decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == gguf.TokenType.CONTROL]
    fast.add_special_tokens(control)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast,
        bos_token=tokens[fields["tokenizer.ggml.bos_token_id"].contents()],
        eos_token=tokens[fields["tokenizer.ggml.eos_token_id"].contents()],
        chat_template=fields["tokenizer.chat_template"].contents(),
    )
