"""Candidates: files of a model in other types, made from the most exact one there is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convert.gguf.file_types import find_type

DEFAULT_TYPES = (
    "f16", "bf16", "q8_0", "q6_k", "q5_0", "q4_k_m", "q4_1", "q4_0", "iq4_nl",
    "q8_0+bf16", "q4_k_m+bf16", "q4_0+bf16", "q4_0+q4_0",
)  # fmt: skip
"""What is measured unless others are asked for; TYPE+OUTPUT has an output matrix of its own type."""

FLOATS = ("f32", "bf16", "f16")
"""Types whose matrices are not quantized."""


@contextmanager
def candidate(source: Path, type: str, place: Path) -> Iterator[Path]:
    """Make ``source`` in another type in a hidden directory of ``place``; it goes again afterwards.

    Raises:
        ConversionError: the disk has no room, or llama.cpp's quantizer cannot make it.
    """
    from convert.quantize import quantize  # and with it much that "--help" has no use for

    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tune-", suffix=".part", dir=place) as directory:
        path = Path(directory) / f"{type}.gguf"
        quantize(source, path, find_type(type))
        yield path
