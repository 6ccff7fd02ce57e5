"""Embeddings of images: libmtmd with our mmproj files against transformers in float32.

libmtmd rounds in three places. Its convolution takes pixels and kernels as float16. GELU is a table in
float16. The mergers of Qwen3-VL have GELU by tanh, where transformers has it by erf. Numbers differ by
up to 5e-4 of the largest so. Where transformers rounds alike, half of them differ by less than 1e-5. Single
ones differ more: an input between two entries of the table falls to either side.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convert import convert_checkpoint
from tests.convert.embeddings import opened, picture
from tests.convert.test_towers import ORACLE
from tests.libmtmd import needs_libmtmd
from tests.random_checkpoints.vision import QWEN_PROCESSOR, write_gemma3, write_qwen3vl

pytestmark = [pytest.mark.parity, needs_libmtmd]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

TOLERANCE, TYPICAL = 1e-3, 1e-5
"""Shares of the largest number: of the largest difference, and of the median once all is rounded alike."""


def write_qwen35(directory: Path) -> None:
    """Write a Qwen3.5 with its tower, which has no deepstack."""
    from tests.random_checkpoints import experts

    experts.write_qwen35(directory, vision=True)
    (directory / "preprocessor_config.json").write_text(json.dumps(QWEN_PROCESSOR), encoding="utf-8")


class Oracle:
    """transformers' model and image processor of a checkpoint."""

    def __init__(self, directory: Path) -> None:
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(
            directory, dtype=torch.float32
        )
        self.processor = transformers.AutoImageProcessor.from_pretrained(directory)

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings of an image, deepstack's behind them."""
        inputs = self.processor(images=[Image.fromarray(pixels)], return_tensors="pt")
        taken = {key: inputs[key] for key in ("pixel_values", "image_grid_thw") if key in inputs}
        with torch.no_grad():
            made = self.model.get_image_features(**taken)
        whole = [made.pooler_output, *(getattr(made, "deepstack_features", None) or [])]
        parts = [part[0].reshape(-1, part[0].shape[-1]) for part in whole]
        numbers: NDArray[np.float32] = torch.cat(parts, -1).numpy()
        return numbers

    def round_as_libmtmd(self) -> None:
        """Round pixels, kernels and activations where libmtmd does."""
        for module in list(self.model.modules()):
            for name, part in list(module.named_children()):
                if "gelu" in type(part).__name__.lower():
                    setattr(module, name, _Table())
            if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
                module.weight.data = module.weight.data.half().float()
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0].half().float(),))


class _Table(torch.nn.Module):  # type: ignore[misc, name-defined]
    """GELU as ggml has it on a CPU."""

    def forward(self, x: Any) -> Any:
        rounded = torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10, torch.zeros_like(x), torch.where(x >= 10, x, rounded))


SIZES = [(96, 96), (64, 96), (192, 64), (32, 320), (160, 256)]


@pytest.mark.parametrize(
    ("write", "sizes"),
    [(write_qwen3vl, SIZES), (write_qwen35, SIZES), (write_gemma3, [(56, 56)])],
)
def test_embeddings(write: Callable[[Path], Any], sizes: list[tuple[int, int]], tmp_path: Path) -> None:
    write(tmp_path / "checkpoint")
    path = convert_checkpoint(tmp_path / "checkpoint", tmp_path / "x.gguf", outtype="f32", verify=False)
    with opened(path) as encoder:
        found = [encoder.encode(picture(*size)) for size in sizes]
    oracle = Oracle(tmp_path / "checkpoint")
    for ours, size in zip(found, sizes, strict=True):
        exact = oracle.encode(picture(*size))
        assert abs(ours - exact).max() < TOLERANCE * abs(exact).max()
    oracle.round_as_libmtmd()
    for ours, size in zip(found, sizes, strict=True):
        alike = oracle.encode(picture(*size))
        assert np.median(abs(ours - alike)) < TYPICAL * abs(alike).max()


@pytest.mark.parametrize(("write", "name"), [(write_qwen3vl, "qwen"), (write_gemma3, "gemma")])
def test_the_values_of_the_default_tests(write: Callable[[Path], Any], name: str, tmp_path: Path) -> None:
    write(tmp_path)
    size, first, last = ORACLE[name]
    made = Oracle(tmp_path).encode(picture(*size))[[0, -1]]
    assert made[:, :3] == pytest.approx(np.array(first), abs=1e-5)
    assert made[:, -3:] == pytest.approx(np.array(last), abs=1e-5)


@pytest.mark.parametrize(
    ("write", "size", "resized", "filter"),
    [
        (write_qwen3vl, (100, 150), (96, 160), "BICUBIC"),
        (write_qwen3vl, (50, 33), (96, 64), "BICUBIC"),
        (write_qwen3vl, (700, 300), (384, 160), "BICUBIC"),
        (write_gemma3, (100, 37), (56, 56), "BILINEAR"),
    ],
)
def test_an_image_resized_before(
    write: Callable[[Path], Any],
    size: tuple[int, int],
    resized: tuple[int, int],
    filter: str,
    tmp_path: Path,
) -> None:
    """What transformers resizes to is left as it is; libmtmd itself would keep the ratio and pad."""
    write(tmp_path / "checkpoint")
    path = convert_checkpoint(tmp_path / "checkpoint", tmp_path / "x.gguf", outtype="f32", verify=False)
    image = Image.fromarray(picture(*size)).resize(resized[::-1], getattr(Image.Resampling, filter))
    with opened(path) as encoder:
        found = encoder.encode(np.asarray(image))
        padded = encoder.encode(picture(*size))
    exact = Oracle(tmp_path / "checkpoint").encode(picture(*size))
    allowed = TOLERANCE * abs(exact).max()
    assert abs(found - exact).max() < allowed
    assert padded.shape != exact.shape or abs(padded - exact).max() > 50 * allowed
