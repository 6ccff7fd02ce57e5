"""Random LoRA adapters for the models of ``random_model``, as files and as the weights they add."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from convert.gguf.file import parse_head

EMBEDDING = "token_embd.weight"
_KINDS = {
    str: gguf.GGUFValueType.STRING,
    float: gguf.GGUFValueType.FLOAT32,
    int: gguf.GGUFValueType.UINT32,
}
Matrix = NDArray[np.float32]


def in_a_layer(name: str) -> bool:
    """Whether a matrix is one that every architecture takes a LoRA for."""
    return name.startswith("blk.") and "conv1d" not in name


@dataclass(frozen=True)
class RandomAdapter:
    """Attributes:
    architecture: of the base.
    alpha: numerator of llama.cpp's factor alpha / rank; 0 for a factor of 1.
    pairs: for each weight the two factors, as llama.cpp stores them: (rank, in) and (out, rank), of
        the embedding (vocabulary, rank) and (embedding, rank).
    """

    architecture: str
    alpha: float
    pairs: Mapping[str, tuple[Matrix, Matrix]]

    def write(self, path: Path, **keys: object) -> Path:
        """Write it; ``keys``: more of its metadata, ``__`` for a dot."""
        tensors = {}
        for name, (a, b) in self.pairs.items():
            tensors |= {f"{name}.lora_a": a, f"{name}.lora_b": b}
        return write_tensors(path, self.architecture, tensors, adapter__lora__alpha=self.alpha, **keys)

    def added(self, scale: float) -> dict[str, Matrix]:
        """Return what the adapter adds to each weight at a scale."""
        return {name: self._product(name, a, b) * np.float32(scale) for name, (a, b) in self.pairs.items()}

    def _product(self, name: str, a: Matrix, b: Matrix) -> Matrix:
        factor = np.float32(self.alpha / b.shape[1] if self.alpha else 1.0)
        return factor * (a @ b.T if name == EMBEDDING else b @ a)


def random_adapter(
    base: Path,
    *,
    rank: int = 4,
    alpha: float = 8.0,
    seed: int = 1,
    size: float = 0.3,
    chosen: Callable[[str], bool] = in_a_layer,
) -> RandomAdapter:
    """Make factors for the matrices of ``base`` whose names are ``chosen``.

    ``size``: of what is added at scale 1, relative to the matrices of a random model.
    """
    head = parse_head(base)  # in a moment, where gguf's reader takes seconds for a large vocabulary
    rng = np.random.default_rng(seed)
    pairs: dict[str, tuple[Matrix, Matrix]] = {}
    for name, tensor in head.tensors.items():
        columns, rows = tensor.ne[:2]
        if rows == 1 or not name.endswith(".weight") or not chosen(name):
            continue
        shapes = ((rows, rank), (columns, rank))
        if name != EMBEDDING:
            shapes = ((rank, columns), (rows, rank))
        factor = np.float32((size / (alpha or rank) * (rank / columns) ** 0.5) ** 0.5)
        a, b = (rng.standard_normal(shape, np.float32) * factor for shape in shapes)
        pairs[name] = (a, b)
    return RandomAdapter(str(head.text("general.architecture")), alpha, pairs)


def write_tensors(
    path: Path, architecture: str, tensors: Mapping[str, NDArray[np.generic]], **keys: object
) -> Path:
    """Write an adapter of any tensors; ``keys``: its metadata, ``__`` for a dot."""
    values: dict[str, object] = {"general.type": "adapter", "adapter.type": "lora"}
    values |= {"adapter.lora.alpha": 8.0, **{key.replace("__", "."): v for key, v in keys.items()}}
    writer = gguf.GGUFWriter(path, str(values.pop("general.architecture", architecture)))
    for name, value in values.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_key_value(name, value, _KINDS[type(value)])
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
