"""The vision tower that belongs to a model's file, and that goes where the model goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from convert.gguf.head import pack_head
from convert.gguf.mmproj import find_mmproj
from convert.untied import untie
from tests.random_model import write_random_model
from tinker_local import BadRequestError
from tinker_local.store.inventory import inventory
from tinker_local.store.keeper import StoreKeeper
from tinker_local.store.mmproj import modalities
from tinker_local.store.model_store import ModelStore

TOWER = pack_head({"general.architecture": "clip", "clip.has_vision_encoder": True}, [])


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_random_model(tmp_path_factory.mktemp("pair") / "seer-f32.gguf")
    path.with_name("mmproj-seer-f32.gguf").write_bytes(TOWER)
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


def test_the_pair_is_one_entry_of_the_store(pair: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    keeper = StoreKeeper(store)
    added = keeper.add(pair, "Me/Mine-f32")
    tower = tmp_path / "Me" / "mmproj-Mine-f32.gguf"
    assert tower.read_bytes() == TOWER
    holding = inventory(store)[0]
    assert (holding.name, holding.reads) == ("Me/Mine-f32", ("text", "images"))
    assert holding.n_bytes == added.stat().st_size + len(TOWER)
    assert [v.problems for v in keeper.verify()] == [()]
    tower.write_bytes(TOWER[::-1])
    (verdict,) = keeper.verify("Mine")
    assert "mmproj-Mine-f32.gguf has changed" in verdict.problems[0]
    tower.unlink()
    assert [v.problems for v in keeper.verify()] == [("mmproj-Mine-f32.gguf is missing",)]
    keeper.add(pair, "Me/Mine-f32", force=True)
    keeper.remove("Me/Mine-f32")
    assert not list(tmp_path.rglob("*.gguf*"))


def test_a_tower_that_a_new_file_lacks_does_not_stay(pair: Path, tmp_path: Path) -> None:
    keeper = StoreKeeper(ModelStore(tmp_path))
    added = keeper.add(pair, "Mine")
    alone = pair.with_name("blind.gguf")
    alone.write_bytes(pair.read_bytes())
    keeper.add(alone, "Mine", force=True)
    assert find_mmproj(added) is None


def test_a_checkpoint_may_have_a_tower(pair: Path, tmp_path: Path) -> None:
    path = "tinker://run:train:0/sampler_weights/x"
    store = ModelStore(tmp_path)
    keeper = StoreKeeper(store)
    keeper.add(pair, path)
    assert inventory(store)[-1].reads == ("text", "images")
    assert [v.problems for v in keeper.verify(path)] == [()]


def test_a_file_made_of_the_models_has_its_tower(pair: Path, tmp_path: Path) -> None:
    assert modalities(untie(pair, tmp_path / "seer-untied-f32.gguf")) == ("text", "images")


def test_a_tower_alone_is_no_model(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="is the vision tower of a model; add the"):
        StoreKeeper(ModelStore(tmp_path)).add(pair.with_name("mmproj-seer-f32.gguf"))


def test_a_broken_tower_is_a_problem_of_its_model(pair: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    StoreKeeper(store).add(pair, "Mine")
    (tmp_path / "mmproj-Mine.gguf").write_bytes(b"GGUF")
    holding = inventory(store)[0]
    assert "mmproj-Mine.gguf" in (holding.problem or "")
