"""Model directories: what is read, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.errors import CheckpointError, ConversionError, UnsupportedError
from convert.source.checkpoint import INDEX, WEIGHTS, SourceCheckpoint
from tests.random_checkpoints.plain import write_llama, write_safetensors, write_weights

Change = Callable[[Path], Any]


def edit(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def edit_index(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    index = json.loads((directory / INDEX).read_text())
    change(index["weight_map"])
    (directory / INDEX).write_text(json.dumps(index))


def link(path: Path, target: Path | str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def as_pickle(directory: Path) -> None:
    (directory / WEIGHTS).rename(directory / "pytorch_model.bin")


def with_fifo(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    os.mkfifo(directory / WEIGHTS)


@pytest.mark.parametrize("n_shards", [1, 3])
def test_reads_whole_and_sharded(tmp_path: Path, n_shards: int) -> None:
    written = write_llama(tmp_path, n_shards=n_shards)
    checkpoint = SourceCheckpoint.open(tmp_path)
    assert checkpoint.architecture == "LlamaForCausalLM"
    assert checkpoint.tensors.keys() == written.keys()
    for name, array in written.items():
        assert np.array_equal(checkpoint.tensors[name].array(), array)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda d: (d / "config.json").unlink(), CheckpointError, "has no config.json"),
        (lambda d: (d / "config.json").write_text("{"), CheckpointError, "config.json is not JSON"),
        (
            lambda d: (d / "config.json").write_text("[]"),
            CheckpointError,
            "holds a list where a table is needed",
        ),
        (lambda d: (d / "config.json").write_bytes(b"\xff{}"), CheckpointError, "is not JSON"),
        (lambda d: (d / "config.json").write_text("[" * 10**5), CheckpointError, "nested too deeply"),
        (lambda d: link(d / "config.json", "nowhere"), CheckpointError, "config.json cannot be read"),
        (lambda d: link(d / "config.json", "config.json"), CheckpointError, "config.json cannot be read"),
        (lambda d: link(d / WEIGHTS, "/etc/hostname"), CheckpointError, "outside the directory"),
        (lambda d: (d / WEIGHTS).unlink(), CheckpointError, "has no safetensors file"),
        (as_pickle, UnsupportedError, "pytorch_model.bin.*can run any code"),
        (with_fifo, CheckpointError, "not a regular file"),
        (lambda d: write_safetensors(d / WEIGHTS, {}), CheckpointError, "cut off|no tensors"),
    ],
)
def test_refused(tmp_path: Path, change: Change, error: type[ConversionError], said: str) -> None:
    write_llama(tmp_path)
    change(tmp_path)
    with pytest.raises(error, match=said) as caught:
        SourceCheckpoint.open(tmp_path)
    assert str(tmp_path) in str(caught.value)


def first(places: dict[str, str]) -> str:
    return next(iter(places))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.update({first(p): "../x.safetensors"}), "not the name of a file"),
        (lambda p: p.update({first(p): "/etc/passwd"}), "not the name of a file"),
        (lambda p: p.update({first(p): "a\\b.safetensors"}), "not the name of a file"),
        (lambda p: p.update({first(p): "C:x.safetensors"}), "not the name of a file"),
        (lambda p: p.update({first(p): ".."}), "not the name of a file"),
        (lambda p: p.update({first(p): "x\0.safetensors"}), "not the name of a file"),
        (lambda p: p.update({first(p): 3}), "weight_map has 3"),
        (lambda p: p.update({first(p): "other.safetensors"}), "lacks other.safetensors"),
        (lambda p: p.update({"more": p[first(p)]}), "has no tensor more"),
        (lambda p: p.pop(first(p)), "says it is in no file"),
        (lambda p: p.update({first(p): p[list(p)[-1]]}), "model-00002-of-00002.safetensors has no tensor"),
        (lambda p: p.clear(), "no table weight_map"),
    ],
)
def test_indices_that_lie(tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    write_llama(tmp_path, n_shards=2)
    edit_index(tmp_path, change)
    with pytest.raises(CheckpointError, match=said):
        SourceCheckpoint.open(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_llama(tmp_path, n_shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00002-of-00003\.safetensors"):
        SourceCheckpoint.open(tmp_path)


def test_an_index_decides_between_copies(tmp_path: Path) -> None:
    """A save over an older one leaves files and copies of tensors; the index says which count."""
    tensors = write_llama(tmp_path, n_shards=2)
    stale = {name: np.zeros_like(array) for name, array in tensors.items()}
    for number in (1, 2):
        path = tmp_path / f"model-0000{number}-of-00002.safetensors"
        own = {name: array for i, (name, array) in enumerate(tensors.items()) if i % 2 == number - 1}
        write_safetensors(path, stale | own)
    write_safetensors(tmp_path / "model-00003-of-00003.safetensors", stale | {"x": np.zeros(3, np.float32)})
    write_safetensors(tmp_path / "consolidated.safetensors", stale)
    read = SourceCheckpoint.open(tmp_path).tensors
    assert read.keys() == tensors.keys()
    assert all(np.array_equal(read[name].array(), array) for name, array in tensors.items())


def test_shards_without_an_index(tmp_path: Path) -> None:
    write_llama(tmp_path, n_shards=2)
    (tmp_path / INDEX).unlink()
    with pytest.raises(CheckpointError, match=r"2 safetensors files .* no model.safetensors.index.json"):
        SourceCheckpoint.open(tmp_path)


def test_the_cache_of_hugging_face(tmp_path: Path) -> None:
    plain, home = tmp_path / "plain", tmp_path / "models--org--name"
    written = write_llama(plain)
    snapshot = home / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    for i, file in enumerate(sorted(plain.iterdir())):
        shutil.copy(file, home / "blobs" / str(i))
        (snapshot / file.name).symlink_to(f"../../blobs/{i}")
    assert SourceCheckpoint.open(snapshot).tensors.keys() == written.keys()
    with pytest.raises(CheckpointError, match=r"give a snapshot in it: .*0123abcd"):
        SourceCheckpoint.open(home)
    link(snapshot / WEIGHTS, plain / WEIGHTS)
    with pytest.raises(CheckpointError, match="outside the directory"):
        SourceCheckpoint.open(snapshot)


@pytest.mark.parametrize("names", [None, [], ["A", "B"], "LlamaForCausalLM", [3]])
def test_the_architecture_must_be_said(tmp_path: Path, names: Any) -> None:
    write_llama(tmp_path)
    edit(tmp_path / "config.json", architectures=names)
    with pytest.raises(CheckpointError, match="architectures must hold one name"):
        _ = SourceCheckpoint.open(tmp_path).architecture


def test_directories_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="adapter"):
        SourceCheckpoint.open(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"give one of them: model\.gguf"):
        SourceCheckpoint.open(tmp_path)


def test_the_config_of_the_text_part(tmp_path: Path) -> None:
    tensors = write_llama(tmp_path, tie_word_embeddings=True, text_config={"hidden_size": 3})
    write_weights(tmp_path, tensors)
    assert SourceCheckpoint.open(tmp_path).text_config == {"tie_word_embeddings": True, "hidden_size": 3}
