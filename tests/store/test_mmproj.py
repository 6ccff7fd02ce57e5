"""The vision tower that belongs to a model's file."""

from __future__ import annotations

from pathlib import Path

from tinker_local.store.mmproj import find_mmproj
from tinker_local.store.model_store import ModelStore


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_the_file_of_the_models_own_name_is_found(tmp_path: Path) -> None:
    model = made(tmp_path / "Me" / "Seer-bf16.gguf")
    made(tmp_path / "Me" / "mmproj-Other-bf16.gguf")
    assert find_mmproj(model) is None
    tower = made(tmp_path / "Me" / "mmproj-Seer-bf16.gguf")
    assert find_mmproj(model) == tower


def test_a_model_in_parts_has_one_tower(tmp_path: Path) -> None:
    first = made(tmp_path / "seer-00001-of-00002.gguf")
    tower = made(tmp_path / "mmproj-seer.gguf")
    assert find_mmproj(first) == tower


def test_the_most_exact_tower_of_a_snapshot_is_taken(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Org--Seer" / "snapshots" / "0123"
    model = made(snapshot / "Seer-Q4_K_M.gguf")
    made(snapshot / "mmproj-Q8_0.gguf")
    tower = made(snapshot / "mmproj-F16.gguf")
    assert find_mmproj(model) == tower


def test_a_tower_is_no_model_of_the_store(tmp_path: Path) -> None:
    made(tmp_path / "seer.gguf")
    made(tmp_path / "mmproj-seer.gguf")
    assert [model.name for model in ModelStore(tmp_path).files()] == ["seer"]
