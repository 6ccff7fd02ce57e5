"""The types of GGUF files: what llama.cpp calls them, and which of them we write ourselves."""

from __future__ import annotations

from dataclasses import dataclass

from convert.errors import UnsupportedError


@dataclass(frozen=True)
class FileType:
    """What most matrices of a file are stored as.

    Attributes:
        name: as on the command line and in file names.
        number: llama.cpp's, ``general.file_type`` (enum llama_ftype).
        bits: per weight, a little more than it takes.
        is_direct: whether we write it; the others llama.cpp's quantizer makes.
    """

    name: str
    number: int
    bits: float
    is_direct: bool = False


FILE_TYPES: dict[str, FileType] = {
    type.name: type
    for type in (
        FileType("f32", 0, 32, is_direct=True),
        FileType("bf16", 32, 16, is_direct=True),
        FileType("f16", 1, 16, is_direct=True),
        FileType("q8_0", 7, 8.5, is_direct=True),
        FileType("q6_k", 18, 7.0),
        FileType("q5_k_m", 17, 6.5),
        FileType("q5_k_s", 16, 6.5),
        FileType("q5_1", 9, 6.5),
        FileType("q5_0", 8, 6.5),
        FileType("q4_k_m", 15, 6.0),
        FileType("q4_k_s", 14, 5.5),
        FileType("q4_1", 3, 5.5),
        FileType("q4_0", 2, 5.5),
        FileType("iq4_nl", 25, 5.5),
        FileType("iq4_xs", 30, 5.5),
        FileType("mxfp4_moe", 38, 8.5),
        FileType("q3_k_l", 13, 5.5),
        FileType("q3_k_m", 12, 5.5),
        FileType("q3_k_s", 11, 5.0),
        FileType("iq3_m", 27, 5.0),
        FileType("iq3_s", 26, 5.0),
        FileType("q2_k", 10, 5.0),
        FileType("tq2_0", 37, 5.0),
        FileType("tq1_0", 36, 5.0),
    )
}
"""By name, the most exact first; numbers from llama.cpp's include/llama.h. Small models take more bits
than the type's name says, since embeddings keep more."""

NEED_A_MATRIX = (
    "q2_k_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s",
)  # fmt: skip
"""Types that llama.cpp makes only with an importance matrix, measured on text."""


def find_type(name: str) -> FileType:
    """Return a type by name, in small or capital letters.

    Raises:
        UnsupportedError: there is none, or it needs what we do not have; the message lists the types.
    """
    found = FILE_TYPES.get(name.lower())
    if found is None:
        reason = (
            "needs an importance matrix, which is not supported"
            if name.lower() in NEED_A_MATRIX
            else "is not known"
        )
        raise UnsupportedError(f"the type {name!r} {reason}; there are auto, {', '.join(FILE_TYPES)}")
    return found
