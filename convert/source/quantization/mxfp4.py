"""Experts in MXFP4, as gpt-oss has them: ``NAME_blocks`` and ``NAME_scales``."""

from __future__ import annotations

from convert.errors import CheckpointError
from convert.source.config import Config
from convert.source.packed import GROUP
from convert.source.packed_tensor import packed_mxfp4
from convert.source.quantization.parts import Tensors, ending_with, take

_BLOCKS, _SCALES = "_blocks", "_scales"


def unpack_mxfp4(tensors: Tensors, quantization: Config | None = None) -> None:
    """Put blocks and scales together under their plain name.

    Raises:
        CheckpointError: one of the two is missing or has the wrong shape.
    """
    for stem in ending_with(tensors, _BLOCKS):
        blocks = tensors.pop(stem + _BLOCKS)
        scales = take(tensors, stem + _SCALES, blocks.name)
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
        tensors[stem] = packed_mxfp4(stem, blocks, scales, GROUP)
