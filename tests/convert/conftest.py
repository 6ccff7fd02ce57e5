"""A checkpoint with tensors that are larger than what a conversion should take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.random_checkpoints.plain import CONFIG, write_llama, write_zeros

LARGE = (1 << 15, 1 << 10)
"""The shape of its largest matrices."""


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of zeros with six matrices of 64 MiB in bfloat16."""
    directory = tmp_path_factory.mktemp("large") / "zeros"
    inner, hidden = LARGE
    tiny = write_llama(directory, intermediate_size=7)  # for its other files, and its tensors' names
    sizes = {64: hidden, 7: inner, 32: hidden // 2, CONFIG["vocab_size"]: CONFIG["vocab_size"]}
    shapes = {name: tuple(sizes[n] for n in array.shape) for name, array in tiny.items()}
    settings = {"hidden_size": hidden, "intermediate_size": inner}
    (directory / "config.json").write_text(json.dumps(CONFIG | settings), encoding="utf-8")
    write_zeros(directory / "model.safetensors", shapes)
    return directory
