"""NVIDIA's ModelOpt: FP8 with a scale for the tensor, and NVFP4 (``weight_scale``, ``weight_scale_2``)."""

from __future__ import annotations

from convert.errors import UnsupportedError
from convert.source.config import Config
from convert.source.quantization.fp8 import unpack_fp8
from convert.source.quantization.nvfp4 import nvfp4_tensor
from convert.source.quantization.parts import Tensors, ending_with, take, take_activations

_FACTOR = ".weight_scale_2"


def unpack_modelopt(tensors: Tensors, quantization: Config) -> None:
    """Put the parts of each matrix together under its name.

    Raises:
        UnsupportedError: another algorithm.
        CheckpointError: a part is missing or has the wrong shape.
    """
    algorithm = quantization.get("quant_algo")
    if algorithm not in ("FP8", "NVFP4"):
        raise UnsupportedError(
            f"config.json: quantization_config has quant_algo {algorithm!r}; of modelopt are "
            "read FP8 and NVFP4"
        )
    for stem in ending_with(tensors, _FACTOR):
        factor, name = tensors.pop(stem + _FACTOR), f"{stem}.weight"
        values, scales = (take(tensors, each, factor.name) for each in (name, f"{stem}.weight_scale"))
        others = take_activations(tensors, f"{stem}.")
        tensors[name] = nvfp4_tensor(name, values, scales, factor, others, divides=False)
    unpack_fp8(tensors, quantization)
