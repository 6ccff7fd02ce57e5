"""Packed matrices: a checkpoint keeps values and scales in several tensors, here they are one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.errors import CheckpointError, UnsupportedError
from convert.source.config import Config
from convert.source.packed import (
    GROUP,
    Bytes,
    dequantize_fp8,
    dequantize_int4,
    dequantize_mxfp4,
    fits_q4_0,
    repack_mxfp4,
    repack_q4_0,
)
from convert.source.tensor import Array, SourceTensor

FP8_SCALE, INT4_VALUES, INT4_SCALE, INT4_SHAPE = (
    ".weight_scale_inv",
    ".weight_packed",
    ".weight_scale",
    ".weight_shape",
)
MXFP4_BLOCKS, MXFP4_SCALES = "_blocks", "_scales"
_MXFP4_NAN = 255
"""The byte of a scale that means NaN."""


@dataclass(frozen=True, eq=False)
class Fp8Tensor(SourceTensor):
    """A matrix of 8-bit floats with a scale for each block of rows and columns. Its array is float32."""

    scales: SourceTensor
    block: tuple[int, int]

    @property
    def sources(self) -> tuple[str, ...]:
        """The checkpoint's tensors it is made of."""
        return (self.name, self.scales.name)

    def array(self) -> Array:
        """Return the numbers it stands for, float32."""
        return dequantize_fp8(self._mapped(), self.scales.array(), self.block)


@dataclass(frozen=True, eq=False)
class Int4Tensor(SourceTensor):
    """Symmetric 4-bit integers, eight in an int32, a scale for each 32 in a row. Its array is float32.

    ``shape`` and ``name`` are those of the matrix; ``dtype`` is that of its scales.
    """

    packed: SourceTensor
    scales: SourceTensor
    others: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The checkpoint's tensors it is made of."""
        return (self.packed.name, self.scales.name, *self.others)

    @property
    def n_bytes(self) -> int:
        """Bytes on disk."""
        return self.packed.n_bytes + self.scales.n_bytes

    def array(self) -> Array:
        """Return the numbers it stands for, float32."""
        return dequantize_int4(self.packed.array(), self.scales.array())

    def fits_q4_0(self) -> bool:
        """Whether Q4_0 can hold it without loss. Reads the scales."""
        return fits_q4_0(self.scales.array())

    def q4_0(self) -> Bytes:
        """Return it in ggml's Q4_0, shape ``(rows, columns / 32 * 18)``."""
        return repack_q4_0(self.packed.array(), self.scales.array())


@dataclass(frozen=True, eq=False)
class Mxfp4Tensor(SourceTensor):
    """Experts in MXFP4, as gpt-oss has them. ``shape`` is (experts, inputs, outputs); an entry is float32.

    Their bytes have outputs first.
    """

    blocks: SourceTensor
    scales: SourceTensor

    @property
    def sources(self) -> tuple[str, ...]:
        """The checkpoint's tensors it is made of."""
        return (self.blocks.name, self.scales.name)

    def array(self) -> Array:
        """Return the numbers it stands for, float32."""
        return np.stack([self.at(expert) for expert in range(self.shape[0])])

    def at(self, index: int) -> Array:
        """Return the numbers of one expert, float32."""
        self._refuse_nan(index)
        return dequantize_mxfp4(self.blocks.array()[index], self.scales.array()[index]).T

    def packed(self, index: int, rows: Array) -> Bytes:
        """Return outputs of an expert in ggml's MXFP4, shape ``(1, rows, inputs / 32 * 17)``."""
        self._refuse_nan(index)
        return repack_mxfp4(self.blocks.array()[index][rows], self.scales.array()[index][rows])[None]

    def _refuse_nan(self, index: int) -> None:
        if self.scales.array()[index].max(initial=0) == _MXFP4_NAN:
            raise CheckpointError(f"tensor {self.scales.name} has a scale that is no number")


def unpack_mxfp4(tensors: Mapping[str, SourceTensor]) -> dict[str, SourceTensor]:
    """Return the tensors with blocks and scales of MXFP4 put together under their plain name.

    Raises:
        CheckpointError: one of the two is missing or has the wrong shape.
    """
    merged = dict(tensors)
    for name in [name for name in tensors if name.endswith(MXFP4_BLOCKS)]:
        stem = name.removesuffix(MXFP4_BLOCKS)
        blocks, scales = merged.pop(name), _part(tensors, stem + MXFP4_SCALES, name)
        del merged[scales.name]
        if (
            len(scales.shape) != 3
            or blocks.shape != (*scales.shape, GROUP // 2)
            or {blocks.dtype, scales.dtype} != {"U8"}
        ):
            raise CheckpointError(
                f"tensor {blocks.name} is {blocks.dtype} {blocks.shape} and {scales.name} is "
                f"{scales.dtype} {scales.shape}; MXFP4 has U8 (experts, outputs, groups, 16) and U8 "
                "(experts, outputs, groups)"
            )
        n_experts, n_outputs, n_groups = scales.shape
        merged[stem] = Mxfp4Tensor(
            **_fields(blocks) | {"name": stem, "shape": (n_experts, n_groups * GROUP, n_outputs)},
            blocks=blocks,
            scales=scales,
        )
    return merged


def unpack(tensors: Mapping[str, SourceTensor], config: Config) -> Mapping[str, SourceTensor]:
    """Return the tensors with the parts of each packed matrix put together under its plain name.

    Args:
        config: has ``quantization_config`` where anything is packed.

    Raises:
        UnsupportedError: a way of packing that is not known.
        CheckpointError: a part is missing or has the wrong shape.
    """
    quantization = config.section("quantization_config") if "quantization_config" in config else None
    method = None if quantization is None else quantization.get("quant_method")
    if quantization is None:
        return tensors
    merged = dict(tensors)
    if method == "fp8":
        _unpack_fp8(merged, quantization)
    elif method == "compressed-tensors":
        _check_int4(quantization)
        _unpack_int4(merged)
    elif method is not None:
        raise UnsupportedError(
            f"config.json: quantization_config has quant_method {method!r}; of this model fp8 (blocks of "
            "128x128) and compressed-tensors (INT4 in groups of 32) can be read"
        )
    return merged


def _unpack_fp8(tensors: dict[str, SourceTensor], quantization: Config) -> None:
    rows, columns = quantization.get("weight_block_size", [128, 128])
    for name in [name for name in tensors if name.endswith(FP8_SCALE)]:
        scales = tensors.pop(name)
        plain = name.removesuffix("_scale_inv")
        values = _part(tensors, plain, name)
        wanted = tuple(-(-n // size) for n, size in zip(values.shape, (rows, columns), strict=False))
        if values.dtype != "F8_E4M3" or scales.shape != wanted:
            raise CheckpointError(
                f"tensor {plain} is {values.dtype} {values.shape} and {name} is {scales.shape}; "
                f"expected are F8_E4M3 and a scale for each block of {rows}x{columns}: {wanted}"
            )
        tensors[plain] = Fp8Tensor(**_fields(values), scales=scales, block=(rows, columns))


def _check_int4(quantization: Config) -> None:
    quantization.expect("format", "pack-quantized", missing=False)
    for name, group in dict(quantization.get("config_groups", {})).items():
        weights = Config(group, f"config.json: quantization_config: {name}").section("weights")
        weights.expect("num_bits", 4, missing=False)
        weights.expect("group_size", GROUP, missing=False)
        weights.expect("symmetric", True)
        weights.expect("type", "int")
        weights.expect("actorder", False)
        if group.get("input_activations") is not None:
            raise UnsupportedError(
                f"config.json: quantization_config: {name} quantizes activations as well"
            )


def _unpack_int4(tensors: dict[str, SourceTensor]) -> None:
    for name in [name for name in tensors if name.endswith(INT4_VALUES)]:
        stem = name.removesuffix(INT4_VALUES)
        packed = tensors.pop(name)
        scales, shape = (_part(tensors, stem + part, name) for part in (INT4_SCALE, INT4_SHAPE))
        del tensors[scales.name], tensors[shape.name]
        rows, columns = (int(n) for n in shape.array().reshape(-1)[:2])
        if (
            packed.dtype != "I32"
            or packed.shape != (rows, columns // 8)
            or scales.shape != (rows, columns // GROUP)
            or columns % GROUP
        ):
            raise CheckpointError(
                f"tensor {name} is {packed.dtype} {packed.shape} with scales {scales.shape}; its "
                f"{INT4_SHAPE[1:]} says ({rows}, {columns}) in groups of {GROUP}"
            )
        tensors[stem + ".weight"] = Int4Tensor(
            **_fields(scales) | {"name": stem + ".weight", "shape": (rows, columns)},
            packed=packed,
            scales=scales,
            others=(shape.name,),
        )


def _part(tensors: Mapping[str, SourceTensor], name: str, other: str) -> SourceTensor:
    if name not in tensors:
        raise CheckpointError(f"the checkpoint has tensor {other} but not {name}, which belongs to it")
    return tensors[name]


def _fields(tensor: SourceTensor) -> dict[str, Any]:
    return {field: getattr(tensor, field) for field in ("name", "shape", "dtype", "file", "offset")}


__all__ = ["Fp8Tensor", "Int4Tensor", "Mxfp4Tensor", "unpack", "unpack_mxfp4"]
