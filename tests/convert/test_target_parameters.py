"""LoRA on parameters (PEFT's ``target_parameters``): which patterns count, and with which scale.

PEFT saves such factors under the module, and matches patterns against module and parameter. The ranks and
scales below are those of PEFT 0.21; ``tests/parity/test_target_parameters.py`` compares with PEFT itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import CheckpointError, convert_adapter, convert_checkpoint
from tests.convert.expected import numbers, read_gguf
from tests.convert.test_adapter import products
from tests.random_checkpoints.adapters import START, write_adapter
from tests.random_checkpoints.plain import (
    Tensors,
    write_llama,
    write_qwen3moe,
    write_tokenizer,
    write_weights,
)

N_EXPERTS = 3
EXPERTS = "model.layers.0.mlp.experts"
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
FUSED = {"rank_pattern": {r".*\.gate_up_proj": 8}, "alpha_pattern": {r".*\.gate_up_proj": 16}}
"""What PEFT writes for ``gate_proj`` and ``up_proj`` of transformers 4, which transformers 5 has fused."""
RNG = np.random.default_rng(11)

QKV = "blk.0.attn_qkv.weight"


@pytest.fixture(scope="module", params=[False, True], ids=["one by one", "fused"])
def moe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("moe")
    write_qwen3moe(path, n_experts=N_EXPERTS, fused=request.param)
    return path


def pair(module: str, n_out: int, n_in: int, rank: int) -> Tensors:
    """Return factors as PEFT names them; ``rank`` counts all experts."""
    key = f"{START}{module}"
    a, b = (RNG.standard_normal(shape, np.float32) for shape in ((rank, n_in), (n_out, rank)))
    return {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}


def of_experts(factors: Tensors, module: str) -> np.ndarray:
    """Return B A of each expert: A has an expert's rows together, B an expert's columns apart."""
    a, b = (factors[f"{START}{module}.lora_{which}.weight"] for which in "AB")
    rank = len(a) // N_EXPERTS
    return np.stack(
        [b[:, expert::N_EXPERTS] @ a[expert * rank : (expert + 1) * rank] for expert in range(N_EXPERTS)]
    )


@pytest.mark.parametrize(
    ("settings", "gate_up", "down"),
    [  # rank and scale of each parameter, by PEFT
        ({"alpha_pattern": {"experts.down_proj": 64}}, (4, 2.0), (4, 16.0)),
        ({"alpha_pattern": {"experts": 64}}, (4, 2.0), (4, 2.0)),
        ({"alpha_pattern": {"mlp.experts.base_layer": 64}}, (4, 2.0), (4, 2.0)),
        ({"rank_pattern": {"experts.gate_up_proj": 2}}, (2, 4.0), (4, 2.0)),
        ({"rank_pattern": {r"layers\.0\.mlp\.experts\.down_proj": 8}}, (4, 2.0), (8, 1.0)),
        (FUSED, (8, 2.0), (4, 2.0)),
        ({"rank_pattern": {"down_proj": 1}, "use_rslora": True}, (4, 4.0), (1, 8.0)),
    ],
)  # fmt: skip
def test_patterns_match_module_and_parameter(
    moe: Path, tmp_path: Path, settings: dict[str, Any], gate_up: tuple[int, float], down: tuple[int, float]
) -> None:
    inner, outer = f"{EXPERTS}.base_layer", EXPERTS
    factors = pair(inner, 48, 64, N_EXPERTS * gate_up[0]) | pair(outer, 64, 24, N_EXPERTS * down[0])
    given = write_adapter(tmp_path / "lora", factors, lora_alpha=8, target_parameters=BOTH, **settings)
    found = products(convert_adapter(given, moe, tmp_path / "lora.gguf"))
    both = gate_up[1] * of_experts(factors, inner)
    wanted = {"gate": both[:, :24], "up": both[:, 24:], "down": down[1] * of_experts(factors, outer)}
    assert found.keys() == {f"blk.0.ffn_{name}_exps.weight" for name in wanted}
    for name, delta in wanted.items():
        assert np.allclose(found[f"blk.0.ffn_{name}_exps.weight"], delta, rtol=1e-4, atol=1e-4), name


def test_the_router_is_a_parameter(moe: Path, tmp_path: Path) -> None:
    factors = pair("model.layers.0.mlp.gate", N_EXPERTS, 64, 2)
    patterns = {"rank_pattern": {"gate.weight": 2}, "alpha_pattern": {"mlp.gate": 64}}
    given = write_adapter(
        tmp_path / "lora", factors, lora_alpha=8, target_parameters=["gate.weight"], **patterns
    )
    a, b = factors.values()
    found = products(convert_adapter(given, moe, tmp_path / "lora.gguf"))
    assert np.allclose(found["blk.0.ffn_gate_inp.weight"], 4.0 * b @ a, rtol=1e-4, atol=1e-4)


def test_a_rank_that_the_patterns_do_not_give(moe: Path, tmp_path: Path) -> None:
    factors = pair(EXPERTS, 64, 24, N_EXPERTS * 4)
    given = write_adapter(
        tmp_path / "lora", factors, target_parameters=BOTH, rank_pattern={"experts.down_proj": 2}
    )
    said = r"has 12 rows for the 3 experts of .*rank of model\.layers\.0\.mlp\.experts\.down_proj is 2"
    with pytest.raises(CheckpointError, match=said):
        convert_adapter(given, moe, tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("patterns", "rank", "scale"),
    [
        ({"alpha_pattern": {"down_proj": 64}}, 4, 2.0),
        ({"alpha_pattern": {"down_proj.weight": 64}}, 4, 16.0),
        ({"rank_pattern": {"down_proj.weight": 2}}, 2, 4.0),
        ({"rank_pattern": {"down_proj": 2}}, 4, 2.0),
    ],
)
def test_a_weight_of_a_dense_model(
    tmp_path: Path, patterns: dict[str, Any], rank: int, scale: float
) -> None:
    write_llama(tmp_path / "base", dtype="F32")
    weight, module = "model.layers.0.mlp.down_proj", "model.layers.1.mlp.gate_proj"
    factors = pair(weight, 64, 96, rank) | pair(module, 96, 64, 4)
    how = {"target_parameters": ["down_proj.weight"], "target_modules": ["gate_proj"]} | patterns
    given = write_adapter(tmp_path / "lora", factors, lora_alpha=8, **how)
    found = products(convert_adapter(given, tmp_path / "base", tmp_path / "lora.gguf"))
    a, b, other_a, other_b = factors.values()
    assert np.allclose(found["blk.0.ffn_down.weight"], scale * b @ a, rtol=1e-4, atol=1e-4)
    assert np.allclose(found["blk.1.ffn_gate.weight"], 2.0 * other_b @ other_a, rtol=1e-4, atol=1e-4)


def test_a_parameter_with_its_inputs_first(tmp_path: Path) -> None:
    """GPT-2's ``c_attn.weight`` is (inputs, outputs), and a parameter's factors are in its own order."""
    base = write_gpt2(tmp_path / "base")
    factors = pair("transformer.h.0.attn.c_attn", 16, 48, 4)
    given = write_adapter(tmp_path / "lora", factors, lora_alpha=8, target_parameters=["c_attn.weight"])
    found = products(convert_adapter(given, base, tmp_path / "lora.gguf"))
    a, b = factors.values()
    assert np.allclose(found["blk.0.attn_qkv.weight"], 2.0 * (b @ a).T, rtol=1e-4, atol=1e-4)
    merged = convert_adapter(given, base, tmp_path / "m.gguf", merge=True, outtype="f32", verify=False)
    before = numbers(
        read_gguf(convert_checkpoint(base, tmp_path / "b.gguf", outtype="f32", verify=False))[1][QKV]
    )
    assert np.allclose(numbers(read_gguf(merged)[1][QKV]) - before, 2.0 * (b @ a).T, rtol=1e-3, atol=1e-3)


def write_gpt2(directory: Path) -> Path:
    """Write a GPT-2 of one layer, and return its directory."""
    n, width = 300, 16
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": width, "n_head": 2}
    config |= {"n_layer": 1, "n_positions": 32, "vocab_size": n, "eos_token_id": 256, "bos_token_id": 256}
    block = "transformer.h.0."
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (n, width),
        "transformer.wpe.weight": (32, width),
    }
    for name in (f"{block}ln_1", f"{block}ln_2", "transformer.ln_f"):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for name, (n_in, n_out) in {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, 4 * width),
        "mlp.c_proj": (4 * width, width),
    }.items():
        shapes |= {f"{block}{name}.weight": (n_in, n_out), f"{block}{name}.bias": (n_out,)}
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    write_tokenizer(directory, n)
    write_weights(directory, {key: RNG.standard_normal(shape, np.float32) for key, shape in shapes.items()})
    return directory
