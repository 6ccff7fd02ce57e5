"""Towers' heads that libmtmd would end the process on, or that are of another kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.random_tower import Kind, write_random_tower
from tinker_local import BadRequestError
from tinker_local.gguf.tower_check import check_tower

WRONG: list[tuple[Kind, str, Any, str]] = [
    ("qwen3vl", "clip.projector_type", "mlp", "its projector is mlp; known are gemma3, qwen3vl_merger"),
    ("qwen3vl", "clip.has_vision_encoder", False, "has_vision_encoder is not true"),
    ("qwen3vl", "clip.vision.patch_size", 0, "patch_size is 0; it must be a uint32 from 1"),
    ("qwen3vl", "clip.vision.embedding_length", None, "embedding_length is None"),
    ("qwen3vl", "clip.vision.block_count", 10**9, "block_count is 1000000000"),
    ("qwen3vl", "clip.vision.attention.head_count", 3, "head_count is 3, and does not divide 32"),
    ("qwen3vl", "clip.vision.image_mean", [0.5, 0.5], "image_mean is no array of three numbers"),
    ("qwen3vl", "clip.vision.spatial_merge_size", 3, "spatial_merge_size is 3"),
    ("gemma3", "clip.vision.projector.scale_factor", 3, "joins 3 x 3 patches"),
    ("gemma3", "clip.vision.image_size", 256, "v.position_embd.weight has not 1024 rows"),
]


@pytest.mark.parametrize(("kind", "key", "value", "problem"), WRONG)
def test_wrong_towers(kind: Kind, key: str, value: Any, problem: str, tmp_path: Path) -> None:
    path = write_random_tower(tmp_path / "mmproj-a.gguf", kind, {key: value})
    with pytest.raises(BadRequestError, match=f"cannot be used to read images: .*{problem}"):
        check_tower(path)


def test_what_a_tower_says(tmp_path: Path) -> None:
    qwen = check_tower(write_random_tower(tmp_path / "q.gguf", "qwen3vl"))
    assert (qwen.align, qwen.pixels, qwen.resampling) == (32, (4096, 1 << 18), "bicubic")
    gemma = check_tower(write_random_tower(tmp_path / "g.gguf", "gemma3"))
    assert (gemma.align, gemma.image_size, gemma.resampling) == (0, 128, "bilinear")
