"""Scaled rotary positions, in the keys and tensors llama.cpp computes them from.

Formulas: transformers' ``modeling_rope_utils``; llama.cpp's ``ggml_rope_ext`` and ``llama_context``.
"""

from __future__ import annotations

import math

import numpy as np

from convert.architectures.architecture import Value
from convert.config import Rope
from convert.errors import UnsupportedError
from convert.tensor import Array


def rope_metadata(rope: Rope, n_dims: int, context_length: int) -> dict[str, Value]:
    """Return the keys of a rotation.

    Args:
        n_dims: how many of a head's numbers turn.
        context_length: tokens; long-rope's strength follows from it.

    Raises:
        CheckpointError: a parameter of the scaling is missing or no number.
        UnsupportedError: llama.cpp fixes a parameter that is set otherwise.
    """
    values: dict[str, Value] = {"rope.freq_base": rope.theta, "rope.dimension_count": n_dims}
    if rope.kind == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": rope.number("factor")}
    elif rope.kind == "yarn":
        values |= _yarn(rope, context_length)
    elif rope.kind == "longrope":
        values |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": _original_length(rope),
            "rope.scaling.attn_factor": longrope_strength(rope, context_length),
        }
    return values


def rope_factors(rope: Rope, n_dims: int) -> dict[str, Array]:
    """Return the tensors llama.cpp divides the rotary frequencies by, under their names.

    Long-rope has two; a context longer than the original length uses the long ones for every token.

    Returns:
        float32, each of shape ``(n_dims / 2,)``.
    """
    if rope.kind == "llama3":
        return {"rope_freqs.weight": llama3_factors(rope, n_dims)}
    if rope.kind == "longrope":
        return {
            f"rope_factors_{which}.weight": np.array(
                rope.numbers(f"{which}_factor", n_dims // 2), np.float32
            )
            for which in ("long", "short")
        }
    return {}


def llama3_factors(rope: Rope, n_dims: int) -> Array:
    """Return Llama 3.1's factors: long waves slow down by ``factor``, short ones stay, a ramp between.

    Returns:
        float32, shape ``(n_dims / 2,)``.
    """
    factor, low, high = (rope.number(key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    wave_length = 2 * np.pi * rope.theta ** (np.arange(0, n_dims, 2) / n_dims)
    ramp = np.clip((_original_length(rope) / wave_length - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - ramp) / factor + ramp), np.float32)


def longrope_strength(rope: Rope, context_length: int) -> float:
    """Return what long-rope multiplies sine and cosine by."""
    length = _original_length(rope)
    factor = rope.number("factor", context_length / length)
    default = math.sqrt(1 + math.log(factor) / math.log(length)) if factor > 1 else 1.0
    return rope.number("attention_factor", default)


def yarn_strength(rope: Rope, factor: float) -> float:
    """Return what YaRN multiplies sine and cosine by."""
    scale, all_dims = rope.scaling.get("mscale"), rope.scaling.get("mscale_all_dim")
    default = _mscale(factor)
    if scale and all_dims:
        default = _mscale(factor, rope.number("mscale")) / _mscale(factor, rope.number("mscale_all_dim"))
    return rope.number("attention_factor", default)


def _yarn(rope: Rope, context_length: int) -> dict[str, Value]:
    for key, fixed in (("beta_fast", 32.0), ("beta_slow", 1.0)):  # only some architectures read them
        if rope.scaling.get(key) and rope.number(key) != fixed:
            raise UnsupportedError(
                f"config.json: {key} of the yarn rotary scaling is {rope.scaling[key]!r}; llama.cpp's "
                f"architecture for this model computes with {fixed:g}"
            )
    if rope.scaling.get("truncate") is False:
        raise UnsupportedError(
            "config.json: truncate of the yarn rotary scaling is False; llama.cpp truncates"
        )
    length = _original_length(rope)
    factor = rope.number("factor", context_length / length)
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": length,
        # llama.cpp multiplies by 1 + 0.1 ln(factor) of its own accord
        "rope.scaling.attn_factor": yarn_strength(rope, factor) / _mscale(factor),
    }


def _mscale(factor: float, scale: float = 1.0) -> float:
    return 1 + 0.1 * scale * math.log(factor) if factor > 1 else 1.0


def _original_length(rope: Rope) -> int:
    return int(rope.number("original_max_position_embeddings"))
