"""Damaged checkpoints (safetensors, indices, configs, tokenizers) and adapters, each converted in a child.

    python -m tests.fuzz.checkpoints [--count N] [--seed S]

A case is a number: the child copies a sound directory, damages it as that number says, and opens it. Every
fourth is an adapter as Tinker saves them. What is sound enough is converted; the result is not checked here
but in ``tests/convert/test_corruption.py``.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.test_corruption import DAMAGES, STRANGE
from tests.fuzz.command import Fuzzer, fuzzer_main
from tests.random_checkpoints.plain import write_llama, write_safetensors

OUTTYPES = ("f32", "bf16", "q8_0", "auto")


def write_seeds(directory: Path) -> None:
    write_llama(directory / "model")
    adapter = directory / "adapter"
    adapter.mkdir()
    settings = {"r": 4, "lora_alpha": 8, "base_model_name_or_path": "Org/Base", "peft_type": "LORA"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    rng, tensors = np.random.default_rng(5), {}
    for layer in range(2):
        for factor, shape in (("A", (4, 64)), ("B", (64, 4))):
            name = f"base_model.model.model.layers.{layer}.self_attn.o_proj.lora_{factor}.weight"
            tensors[name] = rng.standard_normal(shape, np.float32)
    write_safetensors(adapter / "adapter_model.safetensors", tensors)


def make(number: int, seed: int, _seeds: Path) -> bytes:
    return f"{seed}:{number}".encode()


def attempt(path: Path, seeds: Path) -> str:
    from convert import convert_checkpoint

    case = path.read_text()
    rng, number = random.Random(case), int(case.partition(":")[2])
    work = path.with_suffix(".work")
    try:
        if number % 4 == 3:
            return _open_adapter(rng, seeds, work)
        shutil.copytree(seeds / "model", work)
        for _ in range(rng.choice((1, 1, 2))):
            with suppress(ValueError, struct.error, KeyError, AttributeError):  # there is damage already
                rng.choice(DAMAGES)(rng, work)
        target = path.with_suffix(".out.gguf")
        convert_checkpoint(work, target, outtype=rng.choice(OUTTYPES), verify=False)
        target.unlink()
        return "converted"
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _open_adapter(rng: random.Random, seeds: Path, work: Path) -> str:
    from convert.adapters.checkpoint import AdapterCheckpoint

    shutil.copytree(seeds / "adapter", work)
    weights, settings = work / "adapter_model.safetensors", work / "adapter_config.json"
    if rng.random() < 0.4:
        config: dict[str, Any] = json.loads(settings.read_text())
        for _ in range(rng.choice((1, 3))):
            config[rng.choice([*config, "alpha_pattern", "rank_pattern", "use_dora", "bias"])] = rng.choice(
                STRANGE
            )
        settings.write_text(json.dumps(config))
    else:
        weights.write_bytes(_damaged(rng, weights.read_bytes()))
    found = AdapterCheckpoint.open(work)
    for factors in found.factors:
        factors.a(), factors.b()
    return "adapter read"


def _damaged(rng: random.Random, data: bytes) -> bytes:
    """Return a safetensors file whose header or length lies, or with bits flipped, or cut off."""
    (length,) = struct.unpack("<Q", data[:8])
    way = rng.randrange(4)
    if way == 0:
        return data[: rng.randrange(len(data))]
    if way == 1:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 4, 16))):
            changed[rng.randrange(rng.choice((8, 8 + length, len(data))))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if way == 2:
        lie = rng.choice((0, 1, length - 1, length + 1, 10**8, 10**8 + 1, 2**32, 2**63, 2**64 - 1))
        return struct.pack("<Q", lie) + data[8:]
    header = json.loads(data[8 : 8 + length])
    name = rng.choice(list(header))
    field = rng.choice(["dtype", "shape", "data_offsets", "more"])
    header[name][field] = rng.choice(
        [*STRANGE, [4, 64], [0, 1024], [0, 2**63], [-1, 3], "F32", "BF16", "F8_E4M3"]
    )
    if rng.random() < 0.3:
        header[rng.choice(["", "\n", name + ".x", "__metadata__", "base_model.model.x.lora_A.weight"])] = (
            header[name]
        )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


FUZZER = Fuzzer(
    "tests.fuzz.checkpoints", 2000, write_seeds, make, attempt, "convert.errors:ConversionError"
)

if __name__ == "__main__":
    fuzzer_main(FUZZER, __doc__)
