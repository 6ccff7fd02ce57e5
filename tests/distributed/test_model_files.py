"""A model is found by its hash, whatever its place; otherwise it is fetched once, and checked."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from convert.gguf.mmproj import find_mmproj
from tests.random_adapter import random_adapter
from tests.random_model import Shape, write_random_model
from tinker_local import BadRequestError, NotFoundError
from tinker_local.distributed.model_files import ModelFiles
from tinker_local.weights import Weights


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models directory of a node that lacks the driver's files."""
    monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(tmp_path / "node"))
    return tmp_path / "node"


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    (tmp_path / "driver").mkdir()
    return tmp_path / "driver"


class Pieces:
    def __init__(self, **files: Path) -> None:
        self.files, self.n_calls, self.size = files, 0, 100_000

    def __call__(self, sha256: str, offset: int) -> bytes:
        self.n_calls += 1
        return self.files[f"h{sha256}"].read_bytes()[offset : offset + self.size]


def test_files_are_fetched_once_by_all_processes_of_a_node(driver: Path, node: Path) -> None:
    model = write_random_model(driver / "tiny.gguf", shape=Shape(n_layer=1))
    random_adapter(model, rank=2).write(driver / "lora.gguf")
    files = ModelFiles.of(Weights(model, driver / "lora.gguf", 0.5))
    kept = {f"h{file.sha256}": file.path.rename(driver / f"kept-{file.path.name}") for file in files.files}
    pieces = Pieces(**kept)
    with pytest.raises(NotFoundError, match="is not on this machine"):
        files.at_hand(None)
    found: list[Weights] = []
    threads = [threading.Thread(target=lambda: found.append(files.at_hand(pieces))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    n_bytes = [file.size for file in files.files]
    assert pieces.n_calls == sum(-(-n // pieces.size) + 1 for n in n_bytes)
    (weights,) = set(found)
    assert weights.lora_scale == 0.5
    assert weights.path.is_relative_to(node)
    assert weights.path.read_bytes() == kept[f"h{files.model.parts[0].sha256}"].read_bytes()
    assert files.at_hand(None) == weights


def test_a_file_of_the_same_name_is_taken_only_if_it_is_the_same(driver: Path, node: Path) -> None:
    model = write_random_model(driver / "tiny.gguf", shape=Shape(n_layer=1))
    files = ModelFiles.of(Weights(model))
    assert files.at_hand(None).path == model
    node.mkdir()
    there = shutil.move(model, node / "tiny.gguf")
    assert files.at_hand(None).path == there
    write_random_model(Path(there), shape=Shape(n_layer=1), seed=1)
    with pytest.raises(NotFoundError):
        files.at_hand(None)


@pytest.mark.parametrize("there", ["nothing", "the model", "another tower"])
def test_a_tower_comes_with_its_model(driver: Path, node: Path, there: str) -> None:
    """Beside the driver's model in Hugging Face's cache, the tower has another name."""
    cache = driver / "snapshots" / "1"
    cache.mkdir(parents=True)
    model = write_random_model(cache / "tiny.gguf", shape=Shape(n_layer=1))
    (cache / "mmproj-F16.gguf").write_bytes(b"a tower")
    files = ModelFiles.of(Weights(model))
    assert files.at_hand(None).path == model
    kept = driver.rename(driver.with_name("away")) / "snapshots" / "1"
    node.mkdir()
    if there != "nothing":
        shutil.copy(kept / "tiny.gguf", node)
    if there == "another tower":
        (node / "mmproj-tiny.gguf").write_bytes(b"b tower")
    with pytest.raises(NotFoundError, match=r"tiny\.gguf" if there == "nothing" else r"mmproj-F16\.gguf"):
        files.at_hand(None)
    parts = {file.sha256: kept / file.path.name for file in files.files}
    pieces = Pieces(**{f"h{sha256}": path for sha256, path in parts.items()})
    found = files.at_hand(pieces).path
    assert found.read_bytes() == (kept / "tiny.gguf").read_bytes()
    tower = find_mmproj(found)
    assert tower is not None
    assert tower.read_bytes() == b"a tower"
    assert pieces.n_calls == (2 if there != "nothing" else 2 + -(-model_size(kept) // pieces.size) + 1)
    assert files.at_hand(None).path == found


def model_size(directory: Path) -> int:
    return (directory / "tiny.gguf").stat().st_size


def test_a_file_that_changed_on_the_way_is_refused(driver: Path, node: Path) -> None:
    model = write_random_model(driver / "tiny.gguf", shape=Shape(n_layer=1))
    files = ModelFiles.of(Weights(model))
    other = write_random_model(driver / "other.gguf", shape=Shape(n_layer=1), seed=1)
    model.unlink()
    with pytest.raises(BadRequestError, match="has changed: its SHA-256"):
        files.at_hand(Pieces(**{f"h{files.model.parts[0].sha256}": other}))
    assert not list(node.rglob("*.gguf*"))
