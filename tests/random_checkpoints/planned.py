"""A family's tiny model as a GGUF file of random numbers, from the plans that are stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.random_checkpoints.plans import stored
from tests.random_model import add_vocabulary

N_CTX = 2048


def write_planned(path: Path, case: str, **said: Any) -> Path:
    """Write the model that the converter plans for a case of ``lineup.py``.

    Args:
        path: the file.
        case: a key of ``stored()``.
        said: other settings, by the ends of their keys.
    """
    plan = stored()[case]
    architecture = next(iter(plan["metadata"])).partition(".")[0]
    metadata = plan["metadata"] | {f"{architecture}.{key}": value for key, value in said.items()}
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (metadata | {f"{architecture}.context_length": N_CTX}).items():
        add_value(writer, key, value)
    add_vocabulary(writer, plan["targets"]["token_embd.weight"][0])
    rng = np.random.default_rng(0)
    for name, shape in plan["targets"].items():
        writer.add_tensor(name, _numbers(name, shape, metadata, rng))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _numbers(
    name: str, shape: list[int], metadata: Mapping[str, Any], rng: np.random.Generator
) -> NDArray[np.generic]:
    """Return numbers that keep activations near 1; nothing stays at 0 or 1."""
    if name.endswith("tid2eid.weight"):  # the experts of each token
        n_experts = next(value for key, value in metadata.items() if key.endswith(".expert_count"))
        chosen: NDArray[np.int32] = (
            rng.random((shape[0], n_experts)).argsort(-1)[:, : shape[1]].astype("i4")
        )
        return chosen
    numbers = rng.standard_normal(shape, np.float32)
    if name.endswith("ssm_a"):
        return -np.exp(0.5 + 0.7 * numbers)
    if len(shape) == 1 or name.endswith(("ssm_d", "ssm_norm.weight")):
        return np.float32("norm" in name or name.endswith("ssm_d")) + np.float32(0.2) * numbers
    return np.float32(1.5 * shape[-1] ** -0.5) * numbers
