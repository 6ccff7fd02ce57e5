"""The header of a safetensors file, not trusted: every length, type and offset is checked.

Format (https://huggingface.co/docs/safetensors): eight bytes with the header's length, the header as JSON,
then the tensors' bytes without gaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from convert.errors import CheckpointError
from convert.files.json_file import MOST_BYTES, parse_json
from convert.source.tensor import DTYPES, SourceTensor

_LENGTH = 8  # bytes of the header's own length
_MOST_AXES = 8


def read_tensors(path: Path) -> dict[str, SourceTensor]:
    """Return the tensors of a file by name; their bytes are not read.

    Raises:
        CheckpointError: the file cannot be read, or something in its header is not so: its length, a
            number format, a shape, a place. The tensors must cover the file exactly.
    """
    header, start, size = _read_header(path)
    header.pop("__metadata__", None)
    tensors = {name: _tensor(path, name, entry, start) for name, entry in header.items()}
    _check_cover(path, tensors.values(), start, size)
    return tensors


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """Return the header, where the data starts, and where the file ends."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(_LENGTH), "little")
            if size < _LENGTH + 2:
                raise CheckpointError(f"{path} is cut off: it has {size} bytes")
            if length > MOST_BYTES:
                raise CheckpointError(
                    f"{path} is no safetensors file: its header would have {length} bytes, and at most "
                    f"{MOST_BYTES} are allowed"
                )
            if length > size - _LENGTH:
                raise CheckpointError(
                    f"{path} is cut off: its header has {length} bytes, the whole file {size}"
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    return parse_json(text, f"the header of {path}"), _LENGTH + length, size


def _tensor(path: Path, name: str, entry: Any, start: int) -> SourceTensor:
    where = f"{path}: tensor {name if name.isprintable() else repr(name)}"
    if not name.isprintable():
        raise CheckpointError(f"{where} has characters in its name that cannot be printed")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where} must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{where} has the dtype {dtype!r}; known are {', '.join(DTYPES)}")
    if not _are_counts(shape) or len(shape) > _MOST_AXES:
        raise CheckpointError(f"{where} has the shape {shape!r}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"{where} has the data_offsets {offsets!r}")
    n_bytes = math.prod(shape) * DTYPES[dtype].itemsize
    if n_bytes != offsets[1] - offsets[0]:
        raise CheckpointError(
            f"{where} has {offsets[1] - offsets[0]} bytes; {dtype} of shape {shape} would be {n_bytes}"
        )
    return SourceTensor(name, tuple(shape), dtype, path, start + offsets[0])


def _are_counts(values: Any) -> bool:
    """Whether this is a list of whole numbers of at least 0. JSON's true does not count as one."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_cover(path: Path, tensors: Iterable[SourceTensor], start: int, size: int) -> None:
    end, before = start, "the header"
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.n_bytes)):
        if tensor.offset != end:
            fault = "overlaps" if tensor.offset < end else "leaves a gap after"
            raise CheckpointError(f"{path}: tensor {tensor.name} {fault} {before}")
        end, before = tensor.offset + tensor.n_bytes, tensor.name
    if end > size:
        raise CheckpointError(f"{path} is cut off: {before} ends at byte {end}, the file at {size}")
    if end < size:
        raise CheckpointError(f"{path} has {size - end} bytes after {before} that belong to no tensor")
