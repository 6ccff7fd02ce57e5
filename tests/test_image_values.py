"""Log-probabilities after a picture are those of transformers, which gave these numbers in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import convert_checkpoint
from tests.libmtmd import require_libmtmd
from tests.random_checkpoints.vision import write_gemma3, write_qwen3vl, write_qwen35
from tests.random_tower import picture
from tinker_local import EncodedTextChunk, ImageChunk, ModelInput, ServiceClient

AFTER = list(range(20, 30))
# fmt: off
QWEN = [-6.9183, -5.7633, -5.3232, -6.2883, -5.7355, -6.7897, -6.6161, -6.2684, -6.4151, -6.3308]
QWEN35 = [-6.4729, -7.0924, -5.6474, -8.4425, -6.838, -7.0672, -4.9246, -7.6556, -3.995, -6.7615]
GEMMA = [-5.6869, -6.6876, -7.5248, -6.714, -7.0303, -6.0147, -5.7196, -4.0603, -5.9435, -5.3314]
# fmt: on


@pytest.mark.parametrize(
    ("write", "vision", "expected", "most"),
    [
        (write_qwen3vl, {"deepstack_visual_indexes": [1]}, QWEN, 4e-3),
        (write_qwen35, {}, QWEN35, 1e-3),
        (write_gemma3, {}, GEMMA, 1e-3),
    ],
    ids=["qwen3vl", "qwen35", "gemma3"],
)
def test_log_probabilities_after_a_picture(
    write: Callable[..., Any], vision: dict[str, Any], expected: list[float], most: float, tmp_path: Path
) -> None:
    """``tests/parity/test_images.py`` says what libmtmd rounds."""
    require_libmtmd()
    write(tmp_path / "checkpoint", **vision)
    path = convert_checkpoint(tmp_path / "checkpoint", tmp_path / "a.gguf", outtype="f32", verify=False)
    service = ServiceClient(n_ctx=256, n_threads=1, kv_type="f32", flash_attn=False)
    client = service.create_sampling_client(base_model=str(path))
    prompt = ModelInput.from_ints([5, 6, 7]).append(ImageChunk(data=picture(96, 64), format="png"))
    found = client.compute_logprobs(prompt.append(EncodedTextChunk(tokens=AFTER))).result()
    np.testing.assert_allclose(np.array(found[-10:], float), expected, rtol=0, atol=most)
