"""A model's head: that of its file, or those of all parts if the model is split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convert.gguf.arrays import Array
from convert.gguf.file import GgufFile, StoredValue
from convert.gguf.tensor_info import TensorInfo
from tinker_local.errors import BadRequestError
from tinker_local.gguf.file import read_head

UINT16 = 2  # enum gguf_type; what llama.cpp wants the numbers of parts in
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The heads of all files of a model.

    Attributes:
        path: the first file.
        metadata: its keys and values; those of other parts are ignored, as llama.cpp does.
        types: of the values (enum gguf_type).
        tensors: those of all files, by name.
        others: the files beside the first.
    """

    path: Path
    metadata: Mapping[str, StoredValue]
    types: Mapping[str, int]
    tensors: Mapping[str, TensorInfo]
    others: tuple[Path, ...] = ()

    @classmethod
    def read(cls, path: Path) -> ModelFiles:
        """Read the heads of a model.

        Raises:
            BadRequestError: a file is missing or broken, or the files do not belong together.
        """
        first = read_head(path)
        tensors = dict(first.tensors)
        others = _others(first)
        for file in others:
            for name, tensor in file.tensors.items():
                if name in tensors:
                    raise BadRequestError(
                        f"{file.path} has the tensor {name}, which an earlier part has too"
                    )
                tensors[name] = tensor
        return cls(path, first.metadata, first.types, tensors, tuple(file.path for file in others))

    @property
    def architecture(self) -> str | None:
        """``general.architecture``, None if it is missing or no text."""
        return self.text("general.architecture")

    def text(self, key: str) -> str | None:
        """Return a value, None if it is not there or is no text."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def array(self, key: str) -> Array | None:
        """Return a value, None if it is not there or is no array."""
        value = self.metadata.get(key)
        return value if isinstance(value, Array) else None


def _others(first: GgufFile) -> list[GgufFile]:
    count = first.metadata.get("split.count", 0)
    if first.types.get("split.count", UINT16) != UINT16 or not isinstance(count, int):
        raise BadRequestError(f"{first.path}: split.count is not a uint16")
    if count <= 1:
        return []
    match = _PART.fullmatch(first.path.name)
    if match is None or int(match[2]) != 1 or int(match[3]) != count:
        raise BadRequestError(
            f"{first.path} is a part of a model in {count} files; give the first, which must be called "
            f"NAME-00001-of-{count:05}.gguf"
        )
    _check_number(first, 0)
    return [
        _part(first.path.parent / f"{match[1]}-{i + 1:05}-of-{count:05}.gguf", i) for i in range(1, count)
    ]


def _part(path: Path, number: int) -> GgufFile:
    if not path.exists():
        raise BadRequestError(f"{path} is missing: the model is in several files, and all are needed")
    file = read_head(path)
    _check_number(file, number)
    return file


def _check_number(file: GgufFile, number: int) -> None:
    if file.types.get("split.no") != UINT16 or file.metadata["split.no"] != number:
        raise BadRequestError(
            f"{file.path}: split.no is {file.metadata.get('split.no', 'missing')}; for this file it must "
            f"be {number}, as a uint16"
        )
