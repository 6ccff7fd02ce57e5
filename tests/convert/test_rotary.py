"""Rotary positions against their formulas in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convert.architectures.architecture import rotary_rows
from convert.architectures.rotary import llama3_factors, longrope_strength, rope_factors, rope_metadata
from convert.errors import CheckpointError
from convert.source.config import Config, Rope

Floats = NDArray[np.float64]


def frequencies(theta: float, n_dims: int) -> Floats:
    return theta ** -(np.arange(0, n_dims, 2, dtype=np.float64) / n_dims)


def test_pairs_turn_as_halves_did() -> None:
    """A head of halves, rotated, then reordered, is the reordered head with neighbours rotated."""
    n_heads, size = 3, 16
    rng = np.random.default_rng(0)
    vector, angle = rng.standard_normal((n_heads, size)), rng.standard_normal(size // 2)
    low, high = vector[:, : size // 2], vector[:, size // 2 :]
    halves = np.concatenate(
        [low * np.cos(angle) - high * np.sin(angle), high * np.cos(angle) + low * np.sin(angle)], axis=1
    )
    rows = rotary_rows(n_heads, size)
    assert sorted(rows) == list(range(n_heads * size))
    even, odd = vector.reshape(-1)[rows].reshape(n_heads, -1, 2).transpose(2, 0, 1)
    pairs = np.stack(
        [even * np.cos(angle) - odd * np.sin(angle), odd * np.cos(angle) + even * np.sin(angle)], axis=2
    )
    assert np.allclose(pairs.reshape(-1), halves.reshape(-1)[rows], atol=1e-12)


@pytest.mark.parametrize(("theta", "n_dims", "factor"), [(5e5, 64, 32.0), (5e5, 128, 8.0), (1e4, 16, 2.0)])
def test_llama3_factors(theta: float, n_dims: int, factor: float) -> None:
    """Piece by piece, as Meta's own code has it."""
    low, high, length = 1.0, 4.0, 8192
    expected = []
    for frequency in frequencies(theta, n_dims):
        wave = 2 * math.pi / frequency
        if wave < length / high:
            scaled = frequency
        elif wave > length / low:
            scaled = frequency / factor
        else:
            smooth = (length / wave - low) / (high - low)
            scaled = (1 - smooth) * frequency / factor + smooth * frequency
        expected.append(frequency / scaled)
    scaling = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": length,
    }
    found = llama3_factors(Rope(theta, 1.0, scaling), n_dims)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, rtol=1e-6)
    assert found.min() == pytest.approx(1)
    assert found.max() == pytest.approx(factor)


def yarn_of_transformers(scaling: dict[str, Any], theta: float, n_dims: int) -> tuple[Floats, float]:
    """Return frequencies and strength by the paper's formulas (arXiv 2309.00071)."""
    factor, length = scaling["factor"], scaling["original_max_position_embeddings"]

    def dimension(turns: float) -> float:
        return n_dims * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), n_dims - 1)
    ramp = np.clip((np.arange(n_dims // 2) - first) / max(last - first, 0.001), 0, 1)
    plain = frequencies(theta, n_dims)
    if "attention_factor" in scaling:
        strength = scaling["attention_factor"]
    elif "mscale" in scaling:
        strength = (1 + 0.1 * scaling["mscale"] * math.log(factor)) / (
            1 + 0.1 * scaling["mscale_all_dim"] * math.log(factor)
        )
    else:
        strength = 1 + 0.1 * math.log(factor)
    return plain / factor * ramp + plain * (1 - ramp), strength


def yarn_of_llama_cpp(values: dict[str, Any]) -> tuple[Floats, float]:
    """Return what ggml computes from the keys: ``ggml_rope_yarn_corr_dims`` and ``rope_yarn``."""
    n_dims, theta = values["rope.dimension_count"], values["rope.freq_base"]
    length, scale = values["rope.scaling.original_context_length"], 1 / values["rope.scaling.factor"]
    start, end = (
        n_dims * math.log(length / (beta * 2 * math.pi)) / (2 * math.log(theta)) for beta in (32.0, 1.0)
    )
    low, high = max(0, math.floor(start)), min(n_dims - 1, math.ceil(end))
    mix = 1 - np.clip((np.arange(n_dims // 2) - low) / max(0.001, high - low), 0, 1)
    plain = frequencies(theta, n_dims)
    return plain * scale * (1 - mix) + plain * mix, (1 + 0.1 * math.log(1 / scale)) * values[
        "rope.scaling.attn_factor"
    ]


@pytest.mark.parametrize(
    "change", [{}, {"attention_factor": 1.25}, {"mscale": 1.0, "mscale_all_dim": 0.7}, {"beta_fast": 32.0}]
)
def test_yarn(change: dict[str, float]) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, **change}
    found, strength = yarn_of_llama_cpp(rope_metadata(Rope(1e6, 1.0, scaling), 128, 16384))
    expected, expected_strength = yarn_of_transformers(scaling, 1e6, 128)
    assert np.allclose(found, expected, rtol=1e-12)
    assert strength == pytest.approx(expected_strength, rel=1e-12)


def test_yarn_without_a_factor_takes_the_lengths() -> None:
    rope = Rope(1e4, 1.0, {"rope_type": "yarn", "original_max_position_embeddings": 4096})
    assert rope_metadata(rope, 64, 32768)["rope.scaling.factor"] == 8.0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, math.sqrt(1 + math.log(32) / math.log(4096))),
        ({"factor": 4.0}, math.sqrt(1 + math.log(4) / math.log(4096))),
        ({"factor": 1.0}, 1.0),
        ({"attention_factor": 1.5}, 1.5),
    ],
)
def test_longrope_strength(change: dict[str, float], expected: float) -> None:
    scaling = {"rope_type": "longrope", "original_max_position_embeddings": 4096, **change}
    assert longrope_strength(Rope(1e4, 1.0, scaling), 131072) == pytest.approx(expected, rel=1e-12)


def test_longrope_factors_are_those_of_the_config() -> None:
    scaling = {"rope_type": "longrope", "long_factor": [1.0, 2.5], "short_factor": [1, 1.25]}
    found = rope_factors(Rope(1e4, 1.0, scaling), 4)
    assert {name: values.tolist() for name, values in found.items()} == {
        "rope_factors_long.weight": [1.0, 2.5],
        "rope_factors_short.weight": [1.0, 1.25],
    }


@pytest.mark.parametrize(
    "wrong", [None, [1.0], [1.0, 0.0], [1.0, "2"], [1.0, True], [1.0, math.inf], "long"]
)
def test_longrope_factors_must_be_one_positive_number_for_each_pair(wrong: Any) -> None:
    scaling = {"rope_type": "longrope", "long_factor": wrong, "short_factor": [1.0, 1.0]}
    with pytest.raises(CheckpointError, match="long_factor"):
        rope_factors(Rope(1e4, 1.0, scaling), 4)


def test_the_original_length_of_the_model_wins_over_the_scalings_own() -> None:
    settings = {
        "max_position_embeddings": 4096,
        "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1024},
    }
    assert Config(settings).rope().number("original_max_position_embeddings") == 1024
    settings["original_max_position_embeddings"] = 2048
    assert Config(settings).rope().number("original_max_position_embeddings") == 2048
    del settings["original_max_position_embeddings"], settings["rope_scaling"]
    assert Config(settings).rope() == Rope(10000.0)


def test_llama3_factors_without_a_ramp() -> None:
    """Llama 4 Scout's factors are 1 and 1; transformers gives 35 of the 64 frequencies as they are."""
    scaling = {
        "rope_type": "llama3",
        "factor": 16.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
    }
    factors = llama3_factors(Rope(5e5, 1.0, scaling), 128)
    assert (factors == 1).sum() == 35
    assert (factors[35:] == 16).all()
