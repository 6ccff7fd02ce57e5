"""Published models at their real sizes: llama.cpp accepts the names and shapes that the converter plans.

transformers makes the modules on the device "meta", and the GGUF file is a head before a hole, so nothing
takes memory. llama.cpp loads it without allocating: it compares every tensor's shape with the settings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import pytest

from convert.verification.verify import load
from tests.convert import published_lineup as published
from tests.random_checkpoints.planned import add_value
from tests.random_checkpoints.plans import plan
from tests.random_model import add_vocabulary

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::convert.errors.ConversionWarning")]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MODELS = {
    name: settings
    for name, settings in vars(published).items()
    if name.isupper() and not name.startswith("_") and "architectures" in settings
}

AS_TRANSFORMERS_HAS_THEM: dict[str, dict[str, Any]] = {
    "EXAONE_4_32B": {"sliding_window_pattern": 4},
    "GEMMA_3N_E4B": {"architectures": ["Gemma3nForCausalLM"]},  # its images need timm
    "KIMI_LINEAR_48B_A3B": {
        "layer_types": [
            "full_attention" if i in (3, 7, 11, 15, 19, 23, 26) else "linear_attention" for i in range(27)
        ]
    },
    "LLAMA_4_SCOUT": {"attn_temperature_tuning": True},
    "LLAMA_4_MAVERICK": {"attn_temperature_tuning": True},
}
"""Settings that transformers 5 takes in another form than they are published in."""


def modules(settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of transformers' tensors, those of other parts than text left out."""
    model_class = getattr(transformers, settings["architectures"][0])
    config_class = model_class.config_class
    is_outer = "text_config" in getattr(config_class, "sub_configs", {})
    with torch.device("meta"):
        model = model_class(config_class(**({"text_config": settings} if is_outer else settings)))
    tied = settings.get("tie_word_embeddings", model.config.tie_word_embeddings)
    return {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not (tied and name.endswith("lm_head.weight")) and "vis" not in name
    }


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_accepts_names_and_shapes(name: str, tmp_path: Path) -> None:
    settings = MODELS[name]
    made = plan(
        settings["architectures"][0], settings, modules(settings | AS_TRANSFORMERS_HAS_THEM.get(name, {}))
    )
    path = tmp_path / "real.gguf"
    writer = gguf.GGUFWriter(path, next(iter(made["metadata"])).partition(".")[0])
    for key, value in made["metadata"].items():
        add_value(writer, key, value)
    add_vocabulary(writer, made["targets"]["token_embd.weight"][0])
    for target, shape in made["targets"].items():
        integers = target.endswith("tid2eid.weight")
        kind = gguf.GGMLQuantizationType.I32 if integers else gguf.GGMLQuantizationType.F32
        n_bytes = 4 * int(torch.Size(shape).numel())
        writer.add_tensor_info(target, shape, "float32", n_bytes, raw_dtype=kind)  # type: ignore[arg-type]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    n_bytes = sum(4 * int(torch.Size(shape).numel()) + 32 for shape in made["targets"].values())
    os.truncate(path, path.stat().st_size + n_bytes + 32)
    assert load(str(path))
