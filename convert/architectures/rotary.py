"""Scaled rotary positions, in the keys and tensors llama.cpp computes them from.

Formulas: transformers' ``modeling_rope_utils``; llama.cpp's ``ggml_rope_ext`` and ``llama_context``.
"""

from __future__ import annotations

import math

import numpy as np

from convert.architectures.architecture import Value
from convert.errors import UnsupportedError
from convert.source.config import Rope
from convert.source.tensor import Array


def rope_metadata(
    rope: Rope, n_dims: int, context_length: int, *, truncates: bool = False
) -> dict[str, Value]:
    """Return the keys of a rotation.

    Args:
        n_dims: how many of a head's numbers turn.
        context_length: tokens; long-rope's strength follows from it.
        truncates: take YaRN's ``truncate: false`` for true, as llama.cpp does.

    Raises:
        CheckpointError: a parameter of the scaling is missing or no number.
        UnsupportedError: llama.cpp fixes a parameter that is set otherwise.
    """
    values: dict[str, Value] = {"rope.freq_base": rope.theta, "rope.dimension_count": n_dims}
    if rope.kind == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": rope.number("factor")}
    elif rope.kind == "yarn":
        values |= _yarn(rope, context_length, truncates)
    elif rope.kind == "longrope":
        values |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": _original_length(rope),
            "rope.scaling.attn_factor": longrope_strength(rope, context_length),
        }
    return values


def interleaved_sections(n_pairs: int) -> list[int]:
    """Return how many rotary pairs follow time, height and width where these take turns.

    In a text all three are the position. llama.cpp does not turn a pair that is none of the three
    (``mrope_section`` 24, 20, 20 leaves two of 64); transformers turns it by time. Hence every pair is one.
    """
    return [*((n_pairs + 2 - axis) // 3 for axis in range(3)), 0]


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
    turns = _original_length(rope) / wave_length
    # Llama 4 Scout has no ramp: both factors are 1
    ramp = np.clip((turns - low) / (high - low), 0, 1) if high != low else np.heaviside(turns - low, 1)
    return np.asarray(1 / ((1 - ramp) / factor + ramp), np.float32)


def longrope_strength(rope: Rope, context_length: int) -> float:
    """Return the factor of sine and cosine in long-rope."""
    length = _original_length(rope)
    factor = rope.number("factor", context_length / length)
    default = math.sqrt(1 + math.log(factor) / math.log(length)) if factor > 1 else 1.0
    return rope.number("attention_factor", default)


def yarn_strength(rope: Rope, factor: float) -> float:
    """Return the factor of sine and cosine in YaRN."""
    scale, all_dims = rope.scaling.get("mscale"), rope.scaling.get("mscale_all_dim")
    default = _mscale(factor)
    if scale and all_dims:
        default = _mscale(factor, rope.number("mscale")) / _mscale(factor, rope.number("mscale_all_dim"))
    return rope.number("attention_factor", default)


def latent_rope_metadata(rope: Rope, n_dims: int, context_length: int) -> dict[str, Value]:
    """Return the keys of DeepSeek's rotation, in llama.cpp's ``deepseek2``.

    transformers multiplies sine and cosine by YaRN's strength, and scores by the square of what follows
    from ``mscale_all_dim``. llama.cpp, with ``attn_factor`` a and ``yarn_log_multiplier`` 0.1 m, multiplies
    sine and cosine by a and scores by (a (1 + 0.1 m ln(factor)))**2; where m is 0 it puts
    1 + 0.1 ln(factor) in front of both a (src/models/deepseek2.cpp, llama-context.cpp).
    """
    values = rope_metadata(rope, n_dims, context_length)
    if rope.kind != "yarn":
        return values
    factor = rope.number("factor", context_length / _original_length(rope))
    if factor <= 1:
        raise UnsupportedError(f"config.json: factor of the yarn rotary scaling is {factor:g}, not over 1")
    strength = yarn_strength(rope, factor)
    all_dims = rope.scaling.get("mscale_all_dim")
    scores = _mscale(factor, rope.number("mscale_all_dim")) if all_dims else 1.0
    multiplier = (scores / strength - 1) / math.log(factor)
    if not multiplier:
        return values
    return values | {"rope.scaling.attn_factor": strength, "rope.scaling.yarn_log_multiplier": multiplier}


def _yarn(rope: Rope, context_length: int, truncates: bool) -> dict[str, Value]:
    for key, fixed in (("beta_fast", 32.0), ("beta_slow", 1.0)):  # only some architectures read them
        if rope.scaling.get(key) and rope.number(key) != fixed:
            raise UnsupportedError(
                f"config.json: {key} of the yarn rotary scaling is {rope.scaling[key]!r}; llama.cpp's "
                f"architecture for this model computes with {fixed:g}"
            )
    if rope.scaling.get("truncate") is False and not truncates:
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
