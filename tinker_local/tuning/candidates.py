"""Candidates: temporary files of a model in other types, made from its most exact file."""

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
"""Types measured unless others are given; TYPE+OUTPUT has an output matrix of type OUTPUT."""

FLOATS = ("f32", "bf16", "f16")
"""Types whose matrices are not quantized."""


@contextmanager
def candidate(source: Path, type: str, place: Path) -> Iterator[Path]:
    """Convert ``source`` to another type, in a hidden directory of ``place`` that is removed afterwards.

    Raises:
        ConversionError: the disk is full, or llama.cpp's quantizer refuses the type.
    """
    from convert.quantize import quantize  # slow to import: not for --help

    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tune-", suffix=".part", dir=place) as directory:
        path = Path(directory) / f"{type}.gguf"
        quantize(source, path, find_type(type))
        yield path
