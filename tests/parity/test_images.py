"""Images as transformers reads them: tiny random checkpoints, converted with their towers, in float32.

libmtmd computes two things otherwise. ``ggml_conv_2d`` rounds pixels and the first convolution to float16.
The GELU of Qwen's mergers is the approximation by tanh. Given the same two, transformers agrees to 1e-4.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convert import convert_adapter, convert_checkpoint
from convert.untied import untied_of
from tests.libmtmd import needs_libmtmd
from tests.random_checkpoints.vision import (
    FIRST,
    GEMMA_PROCESSOR,
    QWEN_PROCESSOR,
    write_gemma3,
    write_qwen3vl,
    write_qwen35,
)
from tests.random_tower import picture
from tinker_local import (
    EncodedTextChunk,
    ImageChunk,
    ModelInput,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)

pytestmark = [pytest.mark.parity, needs_libmtmd]

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MOST = {"qwen3vl": 4e-3, "qwen35": 1e-2, "gemma3": 1e-3}
"""Largest difference after an image, unless transformers computes the two things as libmtmd does."""
SIZES = [(96, 64), (64, 64), (80, 200), (300, 100), (33, 47), (500, 400)]
EXACT: dict[str, Any] = {"kv_type": "f32", "flash_attn": False}
GREEDY = SamplingParams(max_tokens=5, temperature=0, stop=[])


@dataclass
class Family:
    """A checkpoint's directory, transformers' model and image processor, and what they take."""

    name: str
    path: Path
    model: Any
    processor: Any

    @property
    def is_qwen(self) -> bool:
        """Whether images keep their shape."""
        return self.name != "gemma3"

    def logits(self, prompt: list[int], data: bytes, after: list[int], *, as_libmtmd: bool = False) -> Any:
        """Return transformers' logits, and the number of the image's tokens."""
        found = self.processor(images=[Image.open(io.BytesIO(data))], return_tensors="pt")
        pixels = found["pixel_values"]
        n = int(found["image_grid_thw"].prod()) // 4 if self.is_qwen else 4
        ids = torch.tensor([[*prompt, *[FIRST + 2] * n, *after]])
        more: dict[str, Any] = {"image_grid_thw": found["image_grid_thw"]} if self.is_qwen else {}
        kinds = (ids == FIRST + 2).int()
        more |= {"mm_token_type_ids" if self.is_qwen else "token_type_ids": kinds}
        with torch.no_grad():
            pixels = pixels.half().float() if as_libmtmd else pixels
            return self.model(input_ids=ids, pixel_values=pixels, **more).logits[0], n

    def round_as_libmtmd(self) -> None:
        """Round the first convolution, and take the other GELU, as the module's docstring says."""
        for name, module in self.model.named_modules():
            if type(module).__name__ in ("Qwen3VLVisionPatchMerger", "Qwen3_5VisionPatchMerger"):
                module.act_fn = torch.nn.GELU("tanh")
            if name.endswith(("patch_embed.proj", "patch_embedding")):
                module.weight.data = module.weight.data.half().float()


WRITE: dict[str, Callable[[Path], Any]] = {
    "qwen3vl": partial(write_qwen3vl, deepstack_visual_indexes=[1]),
    "qwen35": write_qwen35,
    "gemma3": write_gemma3,
}


@pytest.fixture(scope="module", params=list(WRITE))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    name, directory = request.param, tmp_path_factory.mktemp(request.param)
    WRITE[name](directory)
    is_qwen = name != "gemma3"
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    settings = {
        k: v for k, v in (QWEN_PROCESSOR if is_qwen else GEMMA_PROCESSOR).items() if "type" not in k
    }
    settings.pop("image_seq_length", None)
    kind = transformers.Qwen2VLImageProcessorPil if is_qwen else transformers.Gemma3ImageProcessorPil
    path = convert_checkpoint(directory, directory / "model.gguf", outtype="f32", verify=False)
    return Family(name, path, model, kind(**settings))


@pytest.fixture(scope="module")
def client(family: Family) -> SamplingClient:
    return ServiceClient(n_ctx=1024, **EXACT).create_sampling_client(base_model=str(family.path))


def _prompt(before: list[int], data: bytes, after: list[int], n: int) -> ModelInput:
    image = ImageChunk(data=data, format="png", expected_tokens=n)
    return ModelInput.from_ints(before).append(image).append(EncodedTextChunk(tokens=after))


def _compare(family: Family, client: SamplingClient, most: float, *, as_libmtmd: bool) -> None:
    rng = np.random.default_rng(1)
    for number, (width, height) in enumerate(SIZES if as_libmtmd else SIZES[:3]):
        before, after = rng.integers(5, 250, 7).tolist(), rng.integers(5, 250, 30).tolist()
        data = picture(width, height, number)
        logits, n = family.logits(before, data, after, as_libmtmd=as_libmtmd)
        expected = torch.log_softmax(logits, -1)
        start = len(before) + n
        found = client.compute_logprobs(_prompt(before, data, after, n)).result()
        assert [p is None for p in found[:start]] == [i == 0 or i >= len(before) for i in range(start)]
        for tokens, first in ((before[1:], 1), (after, start)):
            right = [float(expected[first - 1 + i, token]) for i, token in enumerate(tokens)]
            ours = np.array(found[first : first + len(tokens)], float)
            difference = np.abs(ours - right).max()
            assert difference <= (1e-4 if first == 1 else most), (width, height, difference)
        if number % 3:
            continue
        drawn = client.sample(_prompt(before, data, after, n), 1, GREEDY).result().sequences[0].tokens
        for i, token in enumerate(drawn):
            again = family.logits(before, data, [*after, *drawn[:i]], as_libmtmd=as_libmtmd)[0]
            assert int(again[-1].argmax()) == token, (width, height, i)


def test_as_transformers(family: Family, client: SamplingClient) -> None:
    _compare(family, client, MOST[family.name], as_libmtmd=False)


def test_the_same_rounding_gives_the_same_numbers(family: Family, client: SamplingClient) -> None:
    family.round_as_libmtmd()
    _compare(family, client, 1e-4, as_libmtmd=True)


def test_adapters_on_the_text_side(family: Family, client: SamplingClient, tmp_path: Path) -> None:
    """A LoRA of PEFT's on a model that reads images; of a tied one, it changes the output matrix alone."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    targets = rf".*language_model.*({'|'.join(names)})|lm_head"
    lora = peft.get_peft_model(
        family.model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    )
    lora.save_pretrained(tmp_path / "lora")
    adapter = convert_adapter(tmp_path / "lora", family.path, tmp_path / "lora.gguf")
    tuned = ServiceClient(n_ctx=1024, **EXACT).create_sampling_client(
        model_path=str(adapter), base_model=str(family.path)
    )
    data, before, after = picture(96, 64), [5, 6, 7], list(range(20, 40))
    logits, n = family.logits(before, data, after, as_libmtmd=True)
    expected = torch.log_softmax(logits, -1)[len(before) + n - 1 :]
    prompt = _prompt(before, data, after, n)
    right = np.array([float(expected[i, token]) for i, token in enumerate(after)])
    found = np.array(tuned.compute_logprobs(prompt).result()[-len(after) :], float)
    plain = np.array(client.compute_logprobs(prompt).result()[-len(after) :], float)
    lora.unload()
    untied = untied_of(family.path)
    assert (untied is not None) == (family.name == "gemma3")
    assert np.abs(found - right).max() <= 4e-3
    assert np.abs(plain - right).max() > 0.1
