"""A tied model's file with an output matrix of its own: the same numbers, made once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from convert import CheckpointError, UnsupportedError, convert_checkpoint
from convert.untied import untie, untied_of, untied_path
from tests.convert.expected import read_gguf
from tests.random_checkpoints.plain import write_llama
from tinker_local import ModelInput, ServiceClient


def tied(tmp_path: Path, outtype: str = "f32", **settings: bool) -> Path:
    write_llama(tmp_path / "tied", **{"tie_word_embeddings": True, **settings})
    return convert_checkpoint(
        tmp_path / "tied", tmp_path / f"tied-{outtype}.gguf", outtype=outtype, verify=False
    )


@pytest.mark.parametrize("outtype", ["f32", "bf16", "q8_0", "q4_0"])
def test_bytes_and_scores_are_the_same(tmp_path: Path, outtype: str) -> None:
    base = tied(tmp_path, outtype)
    made = untie(base)
    assert made == tmp_path / f"tied-untied-{outtype}.gguf"
    (keys, given), (own_keys, own) = read_gguf(base), read_gguf(made)
    assert own_keys.items() >= {k: v for k, v in keys.items() if not k.startswith("GGUF.")}.items()
    assert own.keys() == given.keys() | {"output.weight"}
    for name, tensor in own.items():
        source = given["token_embd.weight" if name == "output.weight" else name]
        assert tensor.tensor_type == source.tensor_type
        assert np.array_equal(tensor.data, source.data)
    prompt = ModelInput.from_ints(list(range(32, 64)))
    with ServiceClient(n_ctx=256, prefix_cache=False) as service:
        scores = [
            service.create_sampling_client(base_model=str(path)).compute_logprobs(prompt).result()
            for path in (base, made)
        ]
    assert scores[0] == scores[1]


def test_it_is_made_once_and_again_when_the_base_changes(tmp_path: Path) -> None:
    base = tied(tmp_path)
    assert untied_of(base) is None
    made = untie(base)
    first = made.stat().st_mtime_ns
    assert untie(base) == made == untied_of(base)
    assert made.stat().st_mtime_ns == first
    os.utime(base, ns=(1, 1))  # another file may be older than the one it replaces
    assert untied_of(base) is None
    assert untie(base) == made
    assert made.stat().st_mtime_ns > first


def test_models_that_have_one(tmp_path: Path) -> None:
    base = tied(tmp_path, tie_word_embeddings=False)
    assert untie(base) == base
    assert not untied_path(base).exists()


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(tmp_path / "home"))
    assert untied_path(tmp_path / "a-q4_0.gguf") == tmp_path / "a-untied-q4_0.gguf"
    assert untied_path(tmp_path / "a.gguf") == tmp_path / "a-untied.gguf"
    cached = untied_path(tmp_path / "models--o--m" / "blobs" / "0123abcd")
    assert cached.parent == tmp_path / "home"
    assert cached != untied_path(tmp_path / "models--o--n" / "blobs" / "0123abcd")


def test_files_that_are_not_sound(tmp_path: Path) -> None:
    base = tied(tmp_path)
    data = base.read_bytes()
    for n in (3, 30, 200, len(data) // 2, len(data) - 40):
        (tmp_path / "cut.gguf").write_bytes(data[:n])
        with pytest.raises(CheckpointError, match="cut off"):
            untie(tmp_path / "cut.gguf")
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\xff" * 400)
    with pytest.raises(CheckpointError, match="it has version"):
        untie(tmp_path / "x.gguf")
    assert not list(tmp_path.glob("*untied*"))


def test_parts(tmp_path: Path) -> None:
    write_llama(tmp_path / "tied", tie_word_embeddings=True)
    first = convert_checkpoint(
        tmp_path / "tied", tmp_path / "p.gguf", outtype="f32", verify=False, split_size=100_000
    )
    with pytest.raises(UnsupportedError, match="parts"):
        untie(first)
