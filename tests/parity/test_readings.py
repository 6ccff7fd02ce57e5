"""What a checkpoint's file says against its config.json, read as transformers 5 reads it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import convert_checkpoint
from convert.errors import ConversionWarning
from tests.convert.expected import expected_arrays, numbers, read_gguf
from tests.convert.test_quantization import fp8, mxfp8, write_packed
from tests.convert.test_tied import write_tied
from tests.random_checkpoints.plain import CONFIG

pytestmark = pytest.mark.parity

FP8 = {
    "blocks": (
        {"quant_method": "fp8", "weight_block_size": [32, 32], "activation_scheme": "dynamic"},
        fp8("tensor", "weight_scale_inv", lambda n, m: (n // 32, m // 32)),
    ),
    "a tensor": (
        {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "dynamic"},
        fp8("tensor", "weight_scale_inv", lambda *_: ()),
    ),
    "exponents": ({"quant_method": "mxfp8", "weight_block_size": [1, 32]}, mxfp8),
}


def compare(directory: Path, **how: Any) -> None:
    """Compare every tensor of the GGUF file with the model that transformers loads, in float32."""
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **how)
    theirs = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        path = convert_checkpoint(directory, directory / "m.gguf", outtype="f32", verify=False)
    ours = {name: numbers(tensor) for name, tensor in read_gguf(path)[1].items()}
    expected = expected_arrays(theirs, CONFIG)
    if "output.weight" not in ours:
        assert np.array_equal(expected.pop("output.weight"), expected["token_embd.weight"])
    assert ours.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(ours[name], array), name


@pytest.mark.parametrize("form", FP8)
def test_fp8(tmp_path: Path, form: str) -> None:
    transformers = pytest.importorskip("transformers")
    settings, pack = FP8[form]
    write_packed(tmp_path, settings, pack, torch_dtype="float32")
    block = settings["weight_block_size"]
    how = transformers.FineGrainedFP8Config(dequantize=True, weight_block_size=block and tuple(block))
    compare(tmp_path, quantization_config=how)


@pytest.mark.parametrize("head", ["same", "float32", "alone", "other"])
def test_tied(tmp_path: Path, head: str) -> None:
    write_tied(tmp_path, head, torch_dtype="bfloat16")
    compare(tmp_path)
