"""Saved weights to GGUF: Hugging Face model directories, LoRA adapters, and GGUF files to another type."""

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
