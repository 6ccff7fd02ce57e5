"""``init_lora_weights``: which of PEFT's ways to start change the base's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from convert import UnsupportedError
from convert.adapters.settings import Settings
from tests.random_checkpoints.plain import write_llama

pytestmark = pytest.mark.parity

NEEDS_DATA = {"corda", "loftq"}
"""What cannot start without a data set or a package for CUDA; both change the weights by their papers."""


def test_each_of_them(tmp_path: Path) -> None:
    peft, torch, transformers = (pytest.importorskip(name) for name in ("peft", "torch", "transformers"))
    write_llama(tmp_path / "base", dtype="F32", torch_dtype="float32")
    (literal,) = (hint for hint in get_args(hints(peft)) if get_args(hint))
    ways = [way.replace("[number of iters]", "4") for way in get_args(literal)]
    assert {"orthogonal", "pissa", "mica", "olora"} <= set(ways)
    for way in [True, False, *(way for way in ways if way not in NEEDS_DATA)]:
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        before = model.model.layers[0].self_attn.q_proj.weight.clone()
        made = peft.get_peft_model(
            model, peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=way)
        )
        after = made.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight
        assert reads(tmp_path, way) == bool(torch.equal(before, after)), way
    assert not any(reads(tmp_path, way) for way in (*NEEDS_DATA, "lora_ga"))


def hints(peft: Any) -> Any:
    return get_type_hints(peft.LoraConfig)["init_lora_weights"]


def reads(directory: Path, way: Any) -> bool:
    """Whether an adapter that started so is read."""
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({"r": 4, "lora_alpha": 8, "init_lora_weights": way}))
    try:
        Settings.read(path)
    except UnsupportedError:
        return False
    return True
