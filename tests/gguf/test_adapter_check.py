"""Adapter files that cannot be used are refused, and the process lives on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.random_adapter import random_adapter, write_tensors
from tests.random_model import write_random_model
from tinker_local import BadRequestError, ModelInput, ServiceClient
from tinker_local.llama.adapter import load_adapter
from tinker_local.llama.model import load_model

QUERY, EMBEDDING, NORM = "blk.0.attn_q.weight", "token_embd.weight", "blk.0.attn_norm.weight"


def floats(*shape: int) -> NDArray[np.float32]:
    return np.full(shape, 0.01, np.float32)


def factors(name: str, a: NDArray[Any], b: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {f"{name}.lora_a": a, f"{name}.lora_b": b}


GOOD = factors(QUERY, floats(4, 64), floats(64, 4))

WRONG_KEYS: dict[str, tuple[dict[str, object], str]] = {
    "another architecture": ({"general__architecture": "gemma3"}, "for the architecture gemma3"),
    "a type that is no text": ({"general__type": 3}, "general.type is missing"),
    "another type": ({"general__type": "model"}, "seems to be a whole model"),
    "another method": ({"adapter__type": "ia3"}, "adapter.type is ia3"),
    "a method that is no text": ({"adapter__type": 3}, "adapter.type is missing"),
    "an alpha that is no float": ({"adapter__lora__alpha": 8}, "alpha is not a float32"),
    "an activated LoRA": ({"adapter__alora__invocation_tokens": [1, 2]}, "aLoRA"),
}

WRONG_TENSORS: dict[str, tuple[dict[str, NDArray[Any]], str]] = {
    "no tensors": ({}, "no tensors"),
    "a norm": ({**GOOD, NORM: floats(64)}, "is no factor of a LoRA"),
    "factors of a norm": (factors(NORM, floats(4, 64), floats(1, 4)), "applies no LoRA to"),
    "other columns": (factors(QUERY, floats(4, 32), floats(64, 4)), "wrong shapes"),
    "other rows": (factors(QUERY, floats(4, 64), floats(32, 4)), "wrong shapes"),
    "two ranks": (factors(QUERY, floats(4, 64), floats(64, 5)), "wrong shapes"),
    "three dimensions": (factors(QUERY, floats(3, 4, 64), floats(3, 64, 4)), "wrong shapes"),
    "half a pair": ({f"{QUERY}.lora_a": floats(4, 64)}, "missing one component"),
    "the other half": ({f"{QUERY}.lora_b": floats(64, 4)}, "missing one component"),
    "an unknown ending": ({f"{QUERY}.other": floats(4, 64)}, "is no factor of a LoRA"),
    "a layer too many": (factors("blk.9.attn_q.weight", floats(4, 64), floats(64, 4)), "no counterpart"),
    "integers": (factors(QUERY, np.ones((4, 64), np.int32), floats(64, 4)), "number format"),
    "doubles": (factors(QUERY, floats(4, 64), np.ones((64, 4), np.float64)), "number format"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "base.gguf")


def refused(adapter: Path, base: Path, said: str) -> None:
    """Check that the adapter is refused with both paths and a reason, and that the base still works."""
    with ServiceClient(n_ctx=64) as service:
        with pytest.raises(BadRequestError, match=said) as raised:
            service.create_sampling_client(str(adapter), str(base))
        assert str(adapter) in str(raised.value)
        assert str(base) in str(raised.value)
        client = service.create_sampling_client(base_model=str(base))
        assert len(client.compute_logprobs(ModelInput.from_ints([1, 2])).result(60)) == 2


@pytest.mark.parametrize("case", WRONG_KEYS)
def test_wrong_keys(case: str, base: Path, tmp_path: Path) -> None:
    keys, said = WRONG_KEYS[case]
    path = write_tensors(tmp_path / "adapter.gguf", "llama", GOOD, **keys)
    with pytest.raises(BadRequestError, match=said) as raised:
        load_adapter(load_model(base, -1), path)
    assert str(path) in str(raised.value)
    assert str(base) in str(raised.value)


@pytest.mark.parametrize("case", WRONG_TENSORS)
def test_wrong_tensors(case: str, base: Path, tmp_path: Path) -> None:
    tensors, said = WRONG_TENSORS[case]
    refused(write_tensors(tmp_path / "adapter.gguf", "llama", tensors), base, said)


def test_two_ranks_for_the_embedding(tmp_path: Path) -> None:
    base = write_random_model(tmp_path / "base.gguf", tied=False)
    tensors = factors(EMBEDDING, floats(400, 4), floats(64, 5))
    refused(write_tensors(tmp_path / "adapter.gguf", "llama", tensors), base, "wrong shapes")


def test_one_use_of_tied_embeddings(base: Path, tmp_path: Path) -> None:
    """llama.cpp would end the process; a client puts such an adapter on the untied file of the base."""
    tensors = factors(EMBEDDING, floats(400, 4), floats(64, 4))
    path = write_tensors(tmp_path / "adapter.gguf", "llama", tensors)
    with pytest.raises(BadRequestError, match="also uses as its output"):
        load_adapter(load_model(base, -1), path)
    with ServiceClient(n_ctx=64) as service:
        client = service.create_sampling_client(str(path), str(base))
        assert len(client.compute_logprobs(ModelInput.from_ints([1, 2])).result(60)) == 2


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_truncated_files(base: Path, tmp_path: Path, share: float) -> None:
    path = random_adapter(base).write(tmp_path / "adapter.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BadRequestError, match=r"adapter\.gguf"):
        load_adapter(load_model(base, -1), path)
    with ServiceClient() as service, pytest.raises(BadRequestError, match=r"adapter\.gguf"):
        service.create_sampling_client(str(path), str(base))


def test_a_file_without_its_end(base: Path, tmp_path: Path) -> None:
    path = random_adapter(base).write(tmp_path / "adapter.gguf")
    path.write_bytes(path.read_bytes()[:-100])
    with ServiceClient() as service, pytest.raises(BadRequestError, match="not within the file") as raised:
        service.create_sampling_client(str(path), str(base))
    assert str(path) in str(raised.value)


def test_a_whole_model_is_no_adapter(base: Path) -> None:
    with pytest.raises(BadRequestError, match="whole model"):
        load_adapter(load_model(base, -1), base)


def test_a_good_one(base: Path, tmp_path: Path) -> None:
    half = factors(QUERY, *(tensor.astype(np.float16) for tensor in GOOD.values()))
    path = write_tensors(tmp_path / "adapter.gguf", "llama", half)
    assert load_adapter(load_model(base, -1), path).path == path
