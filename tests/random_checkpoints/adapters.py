"""Random adapters for the tiny Llama of ``plain``, written with numpy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.random_checkpoints.plain import Tensors, write_safetensors

ALPHA, RANK = 16.0, 4
START = "base_model.model."
MATRICES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")


def random_factors(
    base: Mapping[str, Any], *, head: bool = True, rank: int = RANK, seed: int = 3
) -> Tensors:
    """Return factors for some matrices of every layer and, with ``head``, Tinker's ``unembed_tokens``."""
    rng = np.random.default_rng(seed)
    modules = [
        name.removesuffix(".weight") for name in base if name.removesuffix(".weight").endswith(MATRICES)
    ]
    shapes = {name: base[f"{name}.weight"].shape for name in modules}
    if head:
        shapes["model.unembed_tokens"] = base["model.embed_tokens.weight"].shape
    factors = {}
    for name, (n_out, n_in) in shapes.items():
        factors[f"{START}{name}.lora_A.weight"] = rng.standard_normal((rank, n_in), np.float32)
        factors[f"{START}{name}.lora_B.weight"] = rng.standard_normal(
            (n_out, rank), np.float32
        ) * np.float32(0.1)
    return factors


def write_adapter(directory: Path, factors: Tensors, **settings: Any) -> Path:
    """Write both files; ``settings`` go into adapter_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {"r": RANK, "lora_alpha": ALPHA, "peft_type": "LORA"} | settings
    (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    write_safetensors(directory / "adapter_model.safetensors", factors)
    return directory


def added(factors: Tensors, scale: float = ALPHA / RANK) -> Tensors:
    """Return what the factors add to each weight of the checkpoint; the output's is ``lm_head.weight``."""
    deltas = {}
    for key in factors:
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix(START).removesuffix(".lora_A.weight")
            b = factors[key.replace("lora_A", "lora_B")]
            name = "lm_head" if name == "model.unembed_tokens" else name
            deltas[f"{name}.weight"] = (
                np.float32(scale) * b.astype(np.float32) @ factors[key].astype(np.float32)
            )
    return deltas
