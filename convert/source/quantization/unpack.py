"""The door to quantized checkpoints: the method that config.json names puts the tensors together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from convert.errors import ConversionWarning, UnsupportedError
from convert.source.config import Config
from convert.source.quantization.awq import unpack_awq
from convert.source.quantization.bitsandbytes import unpack_bitsandbytes
from convert.source.quantization.compressed_tensors import unpack_compressed_tensors
from convert.source.quantization.fp8 import unpack_fp8
from convert.source.quantization.gptq import unpack_gptq
from convert.source.quantization.modelopt import unpack_modelopt
from convert.source.quantization.mxfp4 import unpack_mxfp4
from convert.source.quantization.parts import Tensors
from convert.source.tensor import SourceTensor

METHODS: dict[str, Callable[[Tensors, Config], None]] = {
    "awq": unpack_awq,
    "bitsandbytes": unpack_bitsandbytes,
    "compressed-tensors": unpack_compressed_tensors,
    "fbgemm_fp8": unpack_fp8,
    "fp8": unpack_fp8,
    "gptq": unpack_gptq,
    "modelopt": unpack_modelopt,
    "mxfp4": unpack_mxfp4,
    "mxfp8": unpack_fp8,
}
"""By the ``quant_method`` of config.json's ``quantization_config``."""

CACHE_SCALES = tuple(f"*.{part}_{what}" for part in "qkv" for what in ("scale", "zero_point"))
"""Patterns (``fnmatch``) of tensors that say how a KV cache is rounded; llama.cpp has ways of its own."""


def unpack(tensors: Mapping[str, SourceTensor], config: Config) -> Mapping[str, SourceTensor]:
    """Return the tensors with the parts of each packed matrix put together under its plain name.

    Args:
        config: has ``quantization_config`` where anything is packed.

    Raises:
        UnsupportedError: a way of packing that is not known.
        CheckpointError: a part is missing or has the wrong shape.
    """
    if "quantization_config" not in config:
        return tensors
    quantization = config.section("quantization_config")
    method = quantization.get("quant_method")
    if method is None and (quantization.get("load_in_4bit") or quantization.get("load_in_8bit")):
        method = "bitsandbytes"  # of transformers before 4.32
    if method not in METHODS:
        raise UnsupportedError(
            f"config.json: quantization_config has quant_method {method!r}, which is not read; read are "
            f"{', '.join(METHODS)}. Convert the model it was made from, or save it with "
            "transformers as plain numbers: model.dequantize(), then model.save_pretrained(...)"
        )
    merged = dict(tensors)
    METHODS[method](merged, quantization)
    if rounded := _rounds_activations(quantization):
        warnings.warn(
            f"config.json says that activations are rounded as well ({rounded}); llama.cpp computes with "
            "the same weights and does not round activations so",
            ConversionWarning,
            stacklevel=2,
        )
    return merged


def _rounds_activations(quantization: Config) -> str:
    """Return the setting that says so, "" if there is none."""
    if scheme := quantization.get("activation_scheme"):
        return f"activation_scheme {scheme}"
    groups = quantization.get("config_groups", {})
    if isinstance(groups, dict):
        for name, group in groups.items():
            if isinstance(group, dict) and group.get("input_activations"):
                return f"{name} input_activations"
    return ""


__all__ = ["CACHE_SCALES", "METHODS", "unpack"]
