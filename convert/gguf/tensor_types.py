"""The number format of each tensor of a file, given the file's type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from gguf import GGMLQuantizationType as Kind

from convert.gguf.encoding import Q8_0_BLOCK
from convert.gguf.file_types import FILE_TYPES, FileType
from convert.gguf.output import StoredTensor
from convert.gguf.target import Target
from convert.source.tensor import SourceTensor

_KEPT = {"F16": Kind.F16, "BF16": Kind.BF16, "F32": Kind.F32, "F64": Kind.F32}


def choose_types(
    targets: Iterable[Target], tensors: Mapping[str, SourceTensor], type: FileType | None
) -> list[StoredTensor]:
    """Choose each target's number format.

    Args:
        type: one that is written directly; None keeps each matrix in the precision it has.
    """
    return [StoredTensor(target, _kind(target, tensors, type)) for target in targets]


def main_type(tensors: Iterable[StoredTensor]) -> FileType:
    """Return the type that most of the matrices' weights are stored in, of those that we write."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.target.is_matrix and tensor.type.name.lower() in FILE_TYPES:
            sizes[tensor.type.name.lower()] += tensor.info.n_bytes
    return FILE_TYPES[max(sizes, key=sizes.__getitem__, default="f32")]


def _kind(target: Target, tensors: Mapping[str, SourceTensor], type: FileType | None) -> Kind:
    if target.raw_type is not None:
        return target.raw_type
    if not target.is_matrix:
        return Kind.F32
    if type is None:
        return _kept({tensors[name].dtype for name in target.sources})
    kind = Kind[type.name.upper()]
    # what does not divide into blocks becomes f16, as in llama.cpp's converter
    return Kind.F16 if kind == Kind.Q8_0 and target.shape[-1] % Q8_0_BLOCK else kind


def _kept(dtypes: set[str]) -> Kind:
    """Return the format that holds the sources' numbers: F32 for a mixture, BF16 for packed matrices."""
    if not dtypes <= _KEPT.keys():
        return Kind.BF16
    kinds = {_KEPT[dtype] for dtype in dtypes}
    return kinds.pop() if len(kinds) == 1 else Kind.F32
