"""The official export merges Tinker's adapters into checkpoints: converting that gives the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from convert import convert_adapter, convert_checkpoint
from convert.gguf.file import read_head

pytestmark = pytest.mark.parity

weights = pytest.importorskip("tinker_cookbook.weights")
pytest.importorskip("torch")

from tests.parity.adapters import find_case, score  # noqa: E402
from tests.parity.families import _load  # noqa: E402
from tests.parity.lora import tinker_lora  # noqa: E402

CASES = {
    "llama, grouped queries": "",
    "qwen, Qwen3": "",
    "qwen, Qwen3, tied, yarn, transformers 4": "lm_head",  # the export changes the input lookup as well
    "qwen3moe, experts one by one": "",
    "qwen3moe, fused experts": "",
    "qwen35, dense, with vision": "lm_head",
    "gptoss, plain experts": "",
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_as_the_official_export(name: str, tmp_path: Path) -> None:
    case, source, without = find_case(name), tmp_path / "checkpoint", CASES[name]
    case.write(source)
    model = _load(source)
    n_tokens = model.get_input_embeddings().weight.shape[0]
    tokens = [int(token) for token in np.random.default_rng(1).integers(20, n_tokens, 64)]
    lora = tinker_lora(model, (lambda module: not module.endswith(without)) if without else lambda _: True)
    given = lora.write(tmp_path / "lora")
    weights.build_hf_model(
        base_model=str(source),
        adapter_path=str(given),
        output_path=str(tmp_path / "official"),
        dtype="float32",
    )
    official = convert_checkpoint(
        tmp_path / "official", tmp_path / "official.gguf", outtype="f32", verify=False
    )
    ours = convert_adapter(given, source, tmp_path / "ours.gguf", merge=True, outtype="f32", verify=False)
    one, other = read_head(official), read_head(ours)
    assert one.tensors.keys() == other.tensors.keys()
    base = convert_checkpoint(source, tmp_path / "base.gguf", outtype="f32", verify=False)
    expected, plain = score(case, tokens, official), score(case, tokens, base)
    adapter = convert_adapter(given, base, tmp_path / "lora.gguf")
    assert np.abs(score(case, tokens, ours) - expected).max() <= 1e-3
    assert np.abs(score(case, tokens, base, adapter) - expected).max() <= 1e-3
    assert np.abs(plain - expected).max() >= 0.1
    assert json.loads((given / "adapter_config.json").read_text())["r"] == lora.rank
