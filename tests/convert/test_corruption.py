"""200 broken checkpoints: each gives an error of ours, or the right result; nothing is left behind."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import ConversionError, convert_checkpoint
from convert.source.checkpoint import WEIGHTS, SourceCheckpoint
from tests.convert.expected import expected_arrays, numbers, read_gguf
from tests.random_checkpoints.plain import write_llama

Damage = Callable[[random.Random, Path], Any]
STRANGE: list[Any] = [
    None, True, -1, 0, 1, 2, 7, 63, 10**9, 2**31, 2**63, -(2**63), 10**400, 0.5, -1e-9, 1e308,
    float("nan"), float("inf"), "", "x", "../x", "\x00", "\ud800", [], [1], [[]], {}, {"rope_type": "x"},
    {"a": {"a": {}}},
]  # fmt: skip


def truncate(rng: random.Random, directory: Path) -> None:
    path = rng.choice([directory / WEIGHTS, directory / WEIGHTS, directory / "config.json"])
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def flip_header(rng: random.Random, directory: Path) -> None:
    flip(rng, directory / WEIGHTS, 8, 3000)


def flip_length(rng: random.Random, directory: Path) -> None:
    flip(rng, directory / WEIGHTS, 0, 8)


def flip_data(rng: random.Random, directory: Path) -> None:
    path = directory / WEIGHTS
    flip(rng, path, 5000, path.stat().st_size)


def flip(rng: random.Random, path: Path, start: int, end: int) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def lie(rng: random.Random, directory: Path) -> None:
    path = directory / WEIGHTS
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    key = rng.choice(list(entry))
    if isinstance(entry[key], list) and rng.random() < 0.6:
        entry[key][rng.randrange(len(entry[key]))] += rng.choice([-1, 1, 2, 64, 2**32])
    else:
        entry[key] = rng.choice([*STRANGE, "F32", "BF16", "I8"])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def lie_in_config(rng: random.Random, directory: Path) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config[rng.choice([*config, "head_dim", "rope_scaling", "rope_parameters"])] = rng.choice(STRANGE)
    path.write_text(json.dumps(config))


def lie_in_tokenizer(rng: random.Random, directory: Path) -> None:
    path = directory / rng.choice(["tokenizer.json", "tokenizer_config.json"])
    table: Any = json.loads(path.read_text())
    while True:
        key = rng.choice(list(table))
        if not isinstance(table[key], dict) or not table[key] or rng.random() < 0.3:
            break
        table = table[key]
    whole = json.loads(path.read_text())
    replace(whole, table, key, rng.choice(STRANGE))
    path.write_text(json.dumps(whole))


def replace(whole: Any, table: Any, key: str, value: Any) -> None:
    """Set a value in the table of ``whole`` that equals ``table``."""
    if whole == table:
        whole[key] = value
        return
    for child in whole.values():
        if isinstance(child, dict):
            replace(child, table, key, value)


DAMAGES: tuple[Damage, ...] = (
    truncate, flip_header, flip_length, flip_data, lie, lie, lie_in_config, lie_in_tokenizer,
)  # fmt: skip
OUTTYPES = ("f32", "bf16", "f16", "q8_0", "auto")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sound") / "tiny"
    write_llama(directory)
    return directory


@pytest.mark.parametrize("seed", range(200))
def test_broken_checkpoints(sound: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    directory = tmp_path / "tiny"
    shutil.copytree(sound, directory)
    DAMAGES[seed % len(DAMAGES)](rng, directory)
    outtype = rng.choice(OUTTYPES)
    try:
        said, path = "", convert_checkpoint(directory, tmp_path / "x.gguf", outtype=outtype)
    except ConversionError as error:
        said, path = str(error), None
    assert "Traceback" not in said
    if path is not None:
        check_result(path, directory)
    else:
        assert said
        assert [entry.name for entry in tmp_path.iterdir()] == ["tiny"]


def check_result(path: Path, directory: Path) -> None:
    """What came out of a broken checkpoint is what its files say."""
    checkpoint = SourceCheckpoint.open(directory)
    arrays = {name: np.array(tensor.array()) for name, tensor in checkpoint.tensors.items()}
    expected = expected_arrays(arrays, checkpoint.config)
    _, tensors = read_gguf(path)
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        wide = array.astype(np.float32)
        assert np.abs(numbers(tensors[name]) - wide).max() <= np.abs(wide).max() / 200


def test_the_sound_one_is_converted(sound: Path, tmp_path: Path) -> None:
    check_result(convert_checkpoint(sound, tmp_path / "x.gguf"), sound)
