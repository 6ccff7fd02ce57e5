"""TensorData: numbers with a dtype and a shape, dense or in compressed sparse rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

TensorDtype: TypeAlias = Literal["int64", "float32"]

_NUMPY: dict[str, type[np.generic]] = {"int64": np.int64, "float32": np.float32}
_DTYPE_OF_KIND: dict[str, TensorDtype] = {"f": "float32", "i": "int64", "V": "float32"}


@dataclass(frozen=True, eq=False, init=False)
class TensorData:
    """Numbers with a dtype and a shape: a dense tensor, or a matrix in compressed sparse rows (CSR).

    Attributes:
        dtype: "int64" or "float32".
        shape: the extents; None for one axis as long as the data.
        sparse_crow_indices: of a CSR matrix, the index in the data at which each row begins, then the
            length of the data: shape[0] + 1 numbers. None for a dense tensor.
        sparse_col_indices: the column of each number of the data.

    The data is a numpy array. Only the methods with torch in their names need torch.
    """

    dtype: TensorDtype
    shape: list[int] | None = None
    sparse_crow_indices: list[int] | None = None
    sparse_col_indices: list[int] | None = None
    _numpy: NDArray[Any] = field(default_factory=lambda: np.empty(0), repr=False)

    def __init__(
        self,
        data: list[int] | list[float] | NDArray[Any] | None = None,
        dtype: TensorDtype | None = None,
        shape: list[int] | None = None,
        sparse_crow_indices: list[int] | None = None,
        sparse_col_indices: list[int] | None = None,
    ) -> None:
        """Take the numbers in row-major order, for CSR those that are listed.

        Raises:
            TypeError: there is no ``dtype``.
            ValueError: it is another than the two, or the numbers do not fill the shape.
        """
        if dtype is None:
            raise TypeError("TensorData requires `dtype`")
        if dtype not in _NUMPY:
            raise ValueError(f"dtype is {dtype!r}; a TensorData holds int64 or float32")
        values = np.asarray([] if data is None else data).astype(_NUMPY[dtype], copy=False)
        if not values.flags.writeable:  # torch shares the memory, and warns of what it may not write to
            values = values.copy()
        if shape is not None and sparse_crow_indices is None:
            values = values.reshape(shape)
        for name, value in (
            ("dtype", dtype),
            ("shape", shape),
            ("sparse_crow_indices", sparse_crow_indices),
            ("sparse_col_indices", sparse_col_indices),
            ("_numpy", values),
        ):
            object.__setattr__(self, name, value)

    @property
    def data(self) -> list[int] | list[float]:
        """The numbers as a flat list."""
        values: list[int] | list[float] = self._numpy.ravel().tolist()
        return values

    @classmethod
    def from_numpy(cls, array: NDArray[Any]) -> TensorData:
        """Make a TensorData of a numpy array of ints or floats of any width.

        Raises:
            ValueError: the array has another dtype.
        """
        if array.dtype.kind not in "fi":
            raise ValueError(f"the array is of {array.dtype}; a TensorData holds int64 or float32")
        return cls(array, _DTYPE_OF_KIND[array.dtype.kind], list(array.shape))

    @classmethod
    def from_torch(cls, tensor: torch.Tensor) -> TensorData:
        """Make a TensorData of a torch tensor on the CPU; bfloat16 becomes float32."""
        if tensor.is_floating_point():
            tensor = tensor.float()
        return cls.from_numpy(tensor.detach().contiguous().numpy())

    @classmethod
    def from_torch_sparse(cls, tensor: torch.Tensor, pad_value: int = 0) -> TensorData:
        """Make a CSR TensorData that leaves out ``pad_value``, if that is smaller; else a dense one."""
        pad_value = _checked_pad(pad_value)
        dense = cls.from_torch(tensor)
        if tensor.ndim != 2:
            return dense
        array = dense._numpy
        listed = array != pad_value
        n_listed = int(listed.sum())
        if len(array) + 1 + 2 * n_listed >= array.size:
            return dense
        begins = np.concatenate([[0], np.cumsum(listed.sum(axis=1))])
        columns = np.nonzero(listed)[1]
        return cls(array[listed], dense.dtype, dense.shape, begins.tolist(), columns.tolist())

    def to_numpy(self, pad_value: int = 0) -> NDArray[Any]:
        """Return a dense array, int64 or float32; empty cells of a CSR matrix are ``pad_value``.

        Raises:
            ValueError: the indices of a CSR matrix do not fit each other, the data or the shape.
        """
        if self.sparse_crow_indices is None:
            return self._numpy
        begins, columns, shape = self._checked_indices()
        array = np.full(shape, _checked_pad(pad_value), self._numpy.dtype)
        array[np.repeat(np.arange(shape[0]), np.diff(begins)), columns] = self._numpy.ravel()
        return array

    def to_torch(self, pad_value: int = 0) -> torch.Tensor:
        """Return ``to_numpy`` as a torch tensor.

        Raises:
            ImportError: torch is not installed.
        """
        try:
            import torch
        except ImportError as error:
            raise ImportError("to_torch needs torch, which is not installed; to_numpy does not") from error
        return torch.from_numpy(self.to_numpy(pad_value))

    def tolist(self, pad_value: int = 0) -> list[Any]:
        """Return ``to_numpy`` as nested lists."""
        nested: list[Any] = self.to_numpy(pad_value).tolist()
        return nested

    def _checked_indices(self) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
        if self.sparse_col_indices is None or self.shape is None or len(self.shape) != 2:
            raise ValueError("a TensorData in CSR needs sparse_col_indices and a shape of two extents")
        begins = np.asarray(self.sparse_crow_indices, np.int64)
        columns = np.asarray(self.sparse_col_indices, np.int64)
        check_csr(begins, columns, self.shape, self._numpy.size)
        return begins, columns, self.shape


def check_csr(
    begins: NDArray[np.int64], columns: NDArray[np.int64], shape: Sequence[int], n_values: int
) -> None:
    """Raise ValueError unless ``begins`` and ``columns`` describe ``n_values`` cells of a matrix."""
    if len(begins) != shape[0] + 1:
        raise ValueError(
            f"sparse_crow_indices has {len(begins)} entries; {shape[0]} rows need {shape[0] + 1}"
        )
    if begins[0] != 0 or begins[-1] != n_values or (np.diff(begins) < 0).any():
        raise ValueError(f"sparse_crow_indices must rise from 0 to the number of values, {n_values}")
    if len(columns) != n_values:
        raise ValueError(f"sparse_col_indices has {len(columns)} entries; {n_values} values need as many")
    if n_values and (columns.min() < 0 or columns.max() >= shape[1]):
        raise ValueError(f"sparse_col_indices must be from 0 to {shape[1] - 1}")


def _checked_pad(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"pad_value is {value!r}; it must be an int")
    return int(value)


__all__ = ["TensorData", "TensorDtype"]
