"""Saved weights to GGUF: Hugging Face model directories, LoRA adapters, and GGUF files to another type.

cli.py         ``tinker-local convert`` and ``python -m convert``
convert.py     ``convert_checkpoint``: a model directory, or a GGUF file, to a GGUF file
adapter.py     ``convert_adapter``: a LoRA to a GGUF adapter, or merged into its base
untied.py      a tied base's file with an output matrix of its own, for adapters that change it
model.py       a checkpoint as the tensors and settings of a GGUF file; nothing is computed yet
metadata.py    ``general.*``: what a file says about itself
quantize.py    llama.cpp's quantizer, in a process of its own
progress.py    the progress bar
errors.py      every reason for which a conversion is refused

source/         the checkpoint, read             architectures/  the model families
vocabularies/   the tokenizer, read              towers/         the vision towers
adapters/       LoRA adapters and their bases
gguf/           GGUF files, read and written     verification/   proof that the result is right
files/          places, locks, hashes, atomic publishing

Imports run one way: errors, files, source, gguf, then architectures and vocabularies, then towers, then
model, adapters and verification, then quantize, convert, untied, adapter, cli. tests/test_layers.py holds
it. Nothing of ``tinker_local`` is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convert.errors import CheckpointError, ConversionError, UnsupportedError

if TYPE_CHECKING:
    from convert.adapter import convert_adapter
    from convert.convert import convert_checkpoint

__all__ = [
    "CheckpointError",
    "ConversionError",
    "UnsupportedError",
    "convert_adapter",
    "convert_checkpoint",
]


def __getattr__(name: str) -> Any:  # the converter is imported when it is used
    if name == "convert_checkpoint":
        from convert.convert import convert_checkpoint

        return convert_checkpoint
    if name == "convert_adapter":
        from convert.adapter import convert_adapter

        return convert_adapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
