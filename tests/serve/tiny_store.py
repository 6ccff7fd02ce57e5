"""A store with a tiny random model, an adapter of it and a checkpoint."""

from __future__ import annotations

from pathlib import Path

from convert.files.models_directory import CHECKPOINT_FILE
from tests.random_adapter import random_adapter
from tests.random_model import Shape, write_random_model

TINY = "Me/Tiny"
CHECKPOINT = "tinker://run-1/sampler_weights/0007"


def write_tiny_store(directory: Path) -> Path:
    checkpoint = directory / "tinker" / "run-1" / "sampler_weights" / "0007"
    for made in (directory / "Me", checkpoint):
        made.mkdir(parents=True)
    path = write_random_model(directory / "Me" / "Tiny-F32.gguf", shape=Shape(n_layer=2))
    adapter = random_adapter(path, rank=3)
    names = {"general__base_model__0__name": "Tiny", "general__base_model__0__organization": "Me"}
    adapter.write(directory / "lora.gguf", **names)
    adapter.write(checkpoint / CHECKPOINT_FILE, **names)
    return directory
