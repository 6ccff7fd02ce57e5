"""LoRA on parameters, made by PEFT: what a converted adapter adds is what PEFT adds when it merges."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import convert_adapter, convert_checkpoint
from tests.convert.expected import numbers, read_gguf
from tests.convert.test_adapter import products
from tests.convert.test_target_parameters import write_gpt2
from tests.random_checkpoints.plain import write_llama, write_qwen3moe

pytestmark = pytest.mark.parity

BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
MOE = [
    {"target_parameters": BOTH, "alpha_pattern": {"experts.down_proj": 64}},
    {"target_parameters": BOTH, "alpha_pattern": {"experts": 64}},
    {"target_parameters": BOTH, "rank_pattern": {"experts.gate_up_proj": 2}, "use_rslora": True},
    {"target_parameters": ["experts.down_proj"], "rank_pattern": {"down_proj": 6}},
    {"target_parameters": ["mlp.gate.weight"], "alpha_pattern": {"gate.weight": 64}},
    {
        "target_modules": ["gate_proj", "up_proj", "down_proj"]
    },  # of transformers 4; PEFT makes parameters of them
]
DENSE = [
    {
        "target_parameters": ["q_proj.weight", "up_proj.weight"],
        "alpha_pattern": {"q_proj": 64, "up_proj.weight": 3},
    },
    {
        "target_parameters": ["q_proj.weight"],
        "target_modules": ["v_proj"],
        "rank_pattern": {"q_proj.weight": 2},
    },
    {"target_parameters": ["lm_head.weight"], "rank_pattern": {"lm_head": 2, "lm_head.weight": 3}},
]
GPT2 = [{"target_parameters": ["c_attn.weight"], "alpha_pattern": {"c_attn.weight": 64}}]
CASES = [
    *((write_qwen3moe, case) for case in MOE),
    *((partial(write_llama, dtype="F32", torch_dtype="float32"), case) for case in DENSE),
    *((write_gpt2, case) for case in GPT2),
]


@pytest.mark.parametrize(("write", "settings"), CASES, ids=[str(case) for _, case in CASES])
def test_as_peft_merges(write: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    peft, torch, transformers = (pytest.importorskip(name) for name in ("peft", "torch", "transformers"))
    base = tmp_path / "base"
    write(base)
    how = {"r": 4, "lora_alpha": 8, "target_modules": []} | settings
    plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.get_peft_model(plain, peft.LoraConfig(**how))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "lora")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in base.glob("tokenizer*"):
        (tmp_path / "merged" / file.name).write_bytes(file.read_bytes())

    before, after = (
        read_gguf(
            convert_checkpoint(tmp_path / name, tmp_path / f"{name}.gguf", outtype="f32", verify=False)
        )[1]
        for name in ("base", "merged")
    )
    found = products(convert_adapter(tmp_path / "lora", tmp_path / "base.gguf", tmp_path / "lora.gguf"))
    for name, tensor in after.items():
        delta = numbers(tensor) - numbers(before[name])
        if name in found:
            assert np.abs(found[name] - delta).max() <= 1e-5 * np.abs(delta).max() + 1e-6, name
        else:
            assert not delta.any(), name
