"""The number formats of tensors: ``enum ggml_type`` of ``ggml/include/ggml.h``.

The package ``gguf`` has such a table too (``GGML_QUANT_SIZES``). This one holds the formats of the
llama.cpp that we run, and a test compares it with the library itself. It also spares
``import tinker_local`` the import of ``gguf``.
"""

from __future__ import annotations

from typing import NamedTuple


class NumberFormat(NamedTuple):
    """How the numbers of a tensor are stored: in blocks of neighbours within a row.

    Attributes:
        name: llama.cpp's, ``Q4_K``.
        block_length: numbers in a block.
        block_bytes: bytes of a block.
    """

    name: str
    block_length: int
    block_bytes: int


F32, I32, I64 = 0, 26, 27

FORMATS: dict[int, NumberFormat] = {
    0: NumberFormat("F32", 1, 4),
    1: NumberFormat("F16", 1, 2),
    2: NumberFormat("Q4_0", 32, 18),
    3: NumberFormat("Q4_1", 32, 20),
    6: NumberFormat("Q5_0", 32, 22),
    7: NumberFormat("Q5_1", 32, 24),
    8: NumberFormat("Q8_0", 32, 34),
    9: NumberFormat("Q8_1", 32, 36),
    10: NumberFormat("Q2_K", 256, 84),
    11: NumberFormat("Q3_K", 256, 110),
    12: NumberFormat("Q4_K", 256, 144),
    13: NumberFormat("Q5_K", 256, 176),
    14: NumberFormat("Q6_K", 256, 210),
    15: NumberFormat("Q8_K", 256, 292),
    16: NumberFormat("IQ2_XXS", 256, 66),
    17: NumberFormat("IQ2_XS", 256, 74),
    18: NumberFormat("IQ3_XXS", 256, 98),
    19: NumberFormat("IQ1_S", 256, 50),
    20: NumberFormat("IQ4_NL", 32, 18),
    21: NumberFormat("IQ3_S", 256, 110),
    22: NumberFormat("IQ2_S", 256, 82),
    23: NumberFormat("IQ4_XS", 256, 136),
    24: NumberFormat("I8", 1, 1),
    25: NumberFormat("I16", 1, 2),
    26: NumberFormat("I32", 1, 4),
    27: NumberFormat("I64", 1, 8),
    28: NumberFormat("F64", 1, 8),
    29: NumberFormat("IQ1_M", 256, 56),
    30: NumberFormat("BF16", 1, 2),
    34: NumberFormat("TQ1_0", 256, 54),
    35: NumberFormat("TQ2_0", 256, 66),
    39: NumberFormat("MXFP4", 32, 17),
    40: NumberFormat("NVFP4", 64, 36),
    41: NumberFormat("Q1_0", 128, 18),
    42: NumberFormat("Q2_0", 64, 18),
}
"""By number. A number that is missing was given up by llama.cpp, or is newer than our version of it."""

NOT_FOR_WEIGHTS = frozenset({9, 15, 24, 25, 26, 27, 28})
"""Integers, float64, and the formats that llama.cpp keeps intermediate results in: it cannot multiply
with them, and ends the process if it has to."""
