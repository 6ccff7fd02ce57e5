"""What every family says: its settings and its tensors, in llama.cpp's names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import gguf
import numpy as np

from convert.errors import CheckpointError
from convert.gguf.head import Value
from convert.gguf.target import Rows, Target
from convert.source.config import Config
from convert.source.tensor import Array, SourceTensor


class Architecture(ABC):
    """A family of models. A subclass is a module of its own, mostly a table of names.

    Args:
        config: the settings of the model's text part.
        tensors: the checkpoint's tensors by name.
    """

    names: ClassVar[tuple[str, ...]]
    """Entries of config.json's ``architectures`` that this class converts."""

    gguf_name: str
    """llama.cpp's name, ``general.architecture``. A class variable, unless the config decides."""

    ignored: tuple[str, ...] = ()
    """Patterns (``fnmatch``) of tensors that are no part of the computation: inverse frequencies, masks."""

    without_lora: ClassVar[tuple[str, ...]] = ()
    """Patterns (``fnmatch``) of the tensors in the GGUF file that llama.cpp multiplies with plainly, not
    through ``build_lora_mm`` or ``build_lora_mm_id`` (src/models/*.cpp, version 0.3.36 of
    llama-cpp-python): a LoRA for them would have no effect."""

    has_output: ClassVar[bool] = True
    """Whether llama.cpp's architecture can have an output matrix that is not the token embeddings."""

    interleaves_experts: ClassVar[bool] = False
    """Whether the rows of ``gate_up_proj`` are a gate's and an up's in turn, not first all of the gate."""

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        self.config, self._source = config, tensors

    @cached_property
    def n_layers(self) -> int:
        """Layers, ``blk.0`` and up."""
        return self.config.integer("num_hidden_layers")

    @property
    def sources(self) -> Mapping[str, SourceTensor]:
        """The checkpoint's tensors by name; a packed matrix is one of them."""
        return self._source

    def change(self, tensors: Mapping[str, SourceTensor]) -> None:
        """Put tensors in the place of those of the same names, or beside them."""
        self._source = {**self._source, **tensors}

    @property
    def fused(self) -> Mapping[str, tuple[str, int]]:
        """Modules that adapters know and the checkpoint has as rows of another one.

        By the last parts of their names: that other one, and the first row.
        """
        return {}

    @abstractmethod
    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""

    @abstractmethod
    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""

    # -- what a family's table is written with ----------------------------------------------------

    def has(self, source: str) -> bool:
        """Whether the checkpoint has a tensor."""
        return source in self._source

    def tensor(self, source: str) -> SourceTensor:
        """Return a tensor of the checkpoint. Raises CheckpointError if it is missing."""
        try:
            return self._source[source]
        except KeyError:
            raise CheckpointError(f"the checkpoint has no tensor {source}, which the model needs") from None

    def expect_shape(self, source: str, shape: tuple[int, ...]) -> None:
        """Raise CheckpointError if a tensor has another shape than the settings give it."""
        found = self.tensor(source).shape
        if found != shape:
            raise CheckpointError(
                f"tensor {source} has the shape {found}; by config.json it would be {shape}"
            )

    def take(
        self,
        name: str,
        source: str,
        *,
        rows: Rows | None = None,
        columns: Rows | None = None,
        transposed: bool = False,
        add: float = 0.0,
        is_matrix: bool | None = None,
    ) -> Target:
        """Return a target that is one source, perhaps with its rows in another order.

        Args:
            rows: the source's row for each row of the target.
            columns: the source's column for each column of the target.
            transposed: the source has inputs first.
            add: is added to every number (Gemma's norms).
            is_matrix: None for whatever has two axes or more.
        """
        tensor = self.tensor(source)
        shape = tensor.shape[::-1] if transposed else tensor.shape
        if rows is not None:
            if rows.max(initial=0) >= shape[0]:
                raise CheckpointError(
                    f"tensor {source} has {shape[0]} rows; config.json needs {rows.max() + 1}"
                )
            shape = (len(rows), *shape[1:])
        if columns is not None and columns.max(initial=0) + 1 != shape[1]:
            raise CheckpointError(
                f"tensor {source} has {shape[1]} columns; config.json needs {columns.max() + 1}"
            )

        def pieces() -> Iterator[Array]:
            for array in _arrays(tensor, rows, columns, transposed):
                yield array.astype(np.float32) + np.float32(add) if add else array

        matrix = len(shape) > 1 if is_matrix is None else is_matrix
        return Target(
            name,
            shape,
            tensor.sources,
            pieces,
            matrix,
            rows=rows,
            columns=columns,
            is_transposed=transposed,
        )

    def stack(self, name: str, sources: Sequence[str], *, rows: Rows | None = None) -> Target:
        """Return a target with one more axis in front: the experts, one source each."""
        tensors = [self.tensor(source) for source in sources]
        shapes = {tensor.shape for tensor in tensors}
        if len(shapes) != 1:
            raise CheckpointError(f"the tensors of {name} differ in shape: {sorted(shapes)}")
        shape = shapes.pop()
        n_rows = shape[0] if rows is None else len(rows)

        def pieces() -> Iterator[Array]:
            for tensor in tensors:
                array = tensor.array()
                yield (array if rows is None else array[rows])[None]

        made_of = tuple(name for tensor in tensors for name in tensor.sources)
        return Target(name, (len(tensors), n_rows, *shape[1:]), made_of, pieces, is_matrix=True, rows=rows)

    def constant(self, name: str, array: Array) -> Target:
        """Return a target that follows from the config alone; it stays float32."""
        return self.compute(name, array.shape, (), lambda: array, is_matrix=False)

    def compute(
        self,
        name: str,
        shape: tuple[int, ...],
        sources: Sequence[str],
        function: Callable[[], Array | Iterator[Array]],
        *,
        is_matrix: bool = True,
        raw_type: gguf.GGMLQuantizationType | None = None,
    ) -> Target:
        """Return a target that a function makes, at once or piece by piece along the first axis."""

        def pieces() -> Iterator[Array]:
            made = function()
            if isinstance(made, np.ndarray):
                yield made
            else:
                yield from made

        return Target(name, shape, tuple(sources), pieces, is_matrix, raw_type)


def _arrays(
    tensor: SourceTensor, rows: Rows | None, columns: Rows | None, transposed: bool
) -> Iterator[Array]:
    if rows is None and columns is None and not transposed:
        yield from tensor.pieces()
        return
    array = tensor.array()
    array = array.T if transposed else array
    array = array if rows is None else array[rows]
    yield array if columns is None else array[:, columns]


def rotary_rows(n_heads: int, head_size: int) -> Rows:
    """Return the order that turns Hugging Face's rotary halves into llama.cpp's neighbouring pairs.

    For the architectures whose rotation llama.cpp computes on pairs (``LLAMA_ROPE_TYPE_NORM``).
    """
    if n_heads * head_size > 1 << 24:
        raise CheckpointError(f"config.json: no model has {n_heads} heads of size {head_size}")
    rows = np.arange(n_heads * head_size).reshape(n_heads, 2, head_size // 2)
    return rows.swapaxes(1, 2).reshape(-1)


__all__ = ["Architecture", "Rows", "Target", "Value", "rotary_rows"]
