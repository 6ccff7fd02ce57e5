"""The base of all model families: what a family says, and the functions that its table is written with.

A family says which hyperparameters llama.cpp reads (``metadata``), and of which tensors of the checkpoint
each of llama.cpp's tensors is made (``targets``). Two sources answer this: llama.cpp's src/models/*.cpp
loads the keys and tensors, and transformers' modeling file gives the checkpoint's tensors their meaning.
A family also refuses settings that llama.cpp cannot compute. ``Config`` refuses every setting that changes
the computation and that the family has not read.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import gguf
import numpy as np

from convert.errors import CheckpointError, UnsupportedError
from convert.gguf.head import Value
from convert.gguf.target import Rows, Target
from convert.source.config import Config
from convert.source.tensor import Array, SourceTensor


class Architecture(ABC):
    """A family of models. A subclass has a module of its own, and is mostly a table of names.

    To add one, start from ``Transformer`` if every layer is attention and an MLP, else from
    ``DecoderOnly``. List the class in ``FAMILIES`` (architectures/__init__.py). Settings that ``targets``
    reads belong in ``SETTINGS`` of adapters/blueprint.py too: adapters on GGUF bases need them there.

    Args:
        config: the settings of the model's text part.
        tensors: the checkpoint's tensors by name.
    """

    names: ClassVar[tuple[str, ...]]
    """Entries of config.json's ``architectures`` that this class converts: ``("LlamaForCausalLM",)``."""

    text_types: ClassVar[tuple[str, ...]] = ()
    """The ``model_type`` of the text part, where families share a name: ``("mistral4",)``."""

    gguf_name: str
    """llama.cpp's name of the architecture, ``general.architecture``.

    From ``LLM_ARCH_NAMES`` in src/llama-arch.cpp. A class variable, or a property if the config decides.
    """

    ignored: tuple[str, ...] = ()
    """Patterns (``fnmatch``) of the checkpoint's tensors that need no place in the file, such as masks.

    Any other tensor that no target is made of is an error.
    """

    without_lora: ClassVar[tuple[str, ...]] = ()
    """Patterns (``fnmatch``) of the tensors in the GGUF file that llama.cpp multiplies with plainly, not
    through ``build_lora_mm`` or ``build_lora_mm_id`` (src/models/*.cpp, version 0.3.36 of
    llama-cpp-python): a LoRA for them would have no effect."""

    has_output: ClassVar[bool] = True
    """Whether llama.cpp's architecture loads an ``output.weight`` besides the token embeddings."""

    interleaves_experts: ClassVar[bool] = False
    """Whether the rows of ``gate_up_proj`` alternate between gate and up. False: the gate's come first."""

    defaults: ClassVar[Mapping[str, Any]] = {}
    """What transformers 5 takes for settings that config.json leaves out: its configuration class.

    Of the settings that the family reads. ``tests/parity/test_defaults.py`` compares with transformers.
    """

    aliases: ClassVar[Mapping[str, str]] = {}
    """Other names that transformers takes for a setting (``attribute_map``), and those they stand for."""

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        self.config, self._source = config.completed(self.defaults, self.aliases), tensors

    @cached_property
    def n_layers(self) -> int:
        """The number of layers: ``blk.0`` and up in the file."""
        return self.config.integer("num_hidden_layers")

    @property
    def sources(self) -> Mapping[str, SourceTensor]:
        """The checkpoint's tensors by name; a packed matrix counts as one tensor."""
        return self._source

    def change(self, tensors: Mapping[str, SourceTensor]) -> None:
        """Replace tensors of the checkpoint by name, or add to them."""
        self._source = {**self._source, **tensors}

    @property
    def copies(self) -> tuple[str, ...]:
        """Names of the checkpoint's tensors that only repeat another one, and go into no target."""
        return ()

    @property
    def fused(self) -> Mapping[str, tuple[str, int]]:
        """Modules that adapters train by themselves, but that are rows of a fused matrix in the checkpoint.

        By the last parts of their names: the fused matrix, and the module's first row in it.
        """
        return {}

    @abstractmethod
    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters that llama.cpp loads; keys without the leading ``{gguf_name}.``."""

    def full_key(self, key: str) -> str:
        """Return a key of ``metadata`` as the file has it."""
        return f"{self.gguf_name}.{key}"

    @abstractmethod
    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file, in the order in which it is written."""

    # -- what a family's table is written with ----------------------------------------------------

    def has(self, source: str) -> bool:
        """Whether the checkpoint has a tensor of this name."""
        return source in self._source

    def tensor(self, source: str) -> SourceTensor:
        """Return a tensor of the checkpoint. Raises CheckpointError if it is missing."""
        try:
            return self._source[source]
        except KeyError:
            raise CheckpointError(f"the checkpoint has no tensor {source}, which the model needs") from None

    def expect_both_kinds(self, recurrent: Sequence[bool]) -> None:
        """Refuse a hybrid model without a layer of either kind: llama.cpp ends the process over it."""
        if all(recurrent) or not any(recurrent):
            raise UnsupportedError(
                f"config.json: {'all' if all(recurrent) else 'none'} of the {len(recurrent)} layers are "
                f"recurrent; llama.cpp's {self.gguf_name} must have some of these and some with attention"
            )

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
        """Return a target that is one source, if need be with its rows in another order.

        Args:
            rows: the source's row for each row of the target.
            columns: the source's column for each column of the target.
            transposed: the source has inputs first, as GPT-2's.
            add: is added to every number (Gemma's norms).
            is_matrix: whether it is stored in the file's type. None: if it has two axes or more.
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

    def vector(self, name: str, source: str, n: int) -> Target:
        """Return a float32 vector of ``n`` numbers that the checkpoint has in any shape: ``(1, n)``."""
        tensor = self.tensor(source)
        if math.prod(tensor.shape) != n:
            raise CheckpointError(f"tensor {source} has the shape {tensor.shape}; config.json needs {n}")
        return self.compute(name, (n,), tensor.sources, lambda: tensor.array().reshape(n), is_matrix=False)

    def stack(self, name: str, sources: Sequence[str], *, rows: Rows | None = None) -> Target:
        """Return a target with one more axis in front, the experts, each from a source of its own."""
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
        """Return a target whose numbers follow from the config alone; it is stored as float32."""
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
        """Return a target whose numbers a function returns, at once or in pieces along the first axis.

        Args:
            shape: rows first, as ``function`` returns it.
            sources: names of the checkpoint's tensors that the function reads.
            is_matrix: False: stored as float32.
            raw_type: the function returns bytes in this number format.
        """

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
