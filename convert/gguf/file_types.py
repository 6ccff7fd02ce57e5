"""The types of GGUF files: what llama.cpp calls them, and which of them we write ourselves."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from convert.errors import UnsupportedError


@dataclass(frozen=True)
class FileType:
    """A type of GGUF files: the number format of most of a file's matrices.

    Attributes:
        name: as on the command line and in file names.
        number: llama.cpp's, ``general.file_type`` (enum llama_ftype).
        bits: per weight, rounded up, for an estimate of a file's size.
        is_direct: whether the converter writes it; llama.cpp's quantizer makes the others.
        output: the output matrix's type where it is set apart (enum ggml_type).
    """

    name: str
    number: int
    bits: float
    is_direct: bool = False
    output: int | None = None


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

OUTPUT_TYPES = {
    "f32": 0, "bf16": 30, "f16": 1, "q8_0": 8, "q6_k": 14,
    "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2, "iq4_nl": 20,
}  # fmt: skip
"""What an output matrix can be stored as by itself, with enum ggml_type: ``q4_0+bf16`` is a q4_0 file
whose output matrix is bf16. In a model that shares it with the token embeddings these change with it."""

NEED_A_MATRIX = (
    "q2_k_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s",
)  # fmt: skip
"""Types that llama.cpp's quantizer makes only with an importance matrix, which is measured on text."""

_TYPE = re.compile(
    rf"[-.](?P<type>(?:{'|'.join(FILE_TYPES)})(?:\+(?:{'|'.join(OUTPUT_TYPES)}))?)", re.IGNORECASE
)


def find_type(name: str) -> FileType:
    """Return a type by name, in small or capital letters; ``TYPE+OUTPUT`` sets the output matrix apart.

    Raises:
        UnsupportedError: there is none, or it needs what we do not have; the message lists the types.
    """
    body, plus, output = name.lower().partition("+")
    found = FILE_TYPES.get(body)
    if plus and output not in OUTPUT_TYPES:
        raise UnsupportedError(
            f"the type {name!r} has no output matrix that we know after the +; there are "
            f"{', '.join(OUTPUT_TYPES)}"
        )
    if found and plus:
        bits = max(found.bits, FILE_TYPES[output].bits)
        return replace(found, name=name.lower(), bits=bits, is_direct=False, output=OUTPUT_TYPES[output])
    if found is None:
        reason = (
            "needs an importance matrix, which is not supported"
            if name.lower() in NEED_A_MATRIX
            else "is not known"
        )
        raise UnsupportedError(f"the type {name!r} {reason}; there are auto, {', '.join(FILE_TYPES)}")
    return found


def inexactness(name: str) -> tuple[int, int]:
    """Return a key to sort types by, the most exact first: places in ``FILE_TYPES``, the worse first."""
    places = sorted(list(FILE_TYPES).index(part) for part in name.lower().split("+"))
    return places[-1], places[0]


def split_type(stem: str) -> tuple[str, str | None]:
    """Split a file's stem into name and type: ``Qwen3-8B-Q4_0`` -> ``Qwen3-8B``, ``q4_0`` (or None)."""
    for match in _TYPE.finditer(stem):
        if match.end() == len(stem) and match.start() > 0:
            return stem[: match.start()], match["type"].lower()
    return stem, None
