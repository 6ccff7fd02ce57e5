"""Where a model lands, and by which names it is found there."""

from __future__ import annotations

from pathlib import Path

import pytest

from convert import ConversionError, convert_checkpoint
from convert.files.models_directory import checked_name, models_directory, name_of_checkpoint
from convert.gguf.file_types import split_type
from tests.random_checkpoints.plain import write_llama
from tinker_local import BadRequestError, ModelInput, NotFoundError, ServiceClient
from tinker_local.store.model_store import ModelStore


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


def put(home: Path, *names: str) -> None:
    for name in names:
        path = home / f"{name}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"GGUF")


def test_lands_where_the_client_finds_it(tmp_path: Path, home: Path) -> None:
    directory = tmp_path / "models--Org--Tiny-1B" / "snapshots" / "abc"
    write_llama(directory)
    path = convert_checkpoint(directory)
    assert path == home / "Org" / "Tiny-1B-bf16.gguf"
    small = convert_checkpoint(path, outtype="q4_0")
    assert small == home / "Org" / "Tiny-1B-q4_0.gguf"
    with ServiceClient(n_ctx=256) as service:
        for name in ("Org/Tiny-1B", "Tiny-1B", "org/tiny-1b-bf16", "Tiny-1B-q4_0"):
            client = service.create_sampling_client(base_model=name)
            assert len(client.compute_logprobs(ModelInput.from_ints([32, 33])).result()) == 2
    assert [path.name for path in home.rglob(".*")] == [".lock"]


def test_several_types_of_a_model(home: Path) -> None:
    put(home, "Org/Name-q4_0", "Org/Name-Q8_0", "Org/Name-q4_k_m", "other")
    store = ModelStore()
    assert store.directory == home
    for name in ("Org/Name", "name", "NAME-q8_0", "org/name-q8_0"):
        assert store.resolve(name) == home / "Org" / "Name-Q8_0.gguf"
    assert store.resolve("Name-Q4_K_M") == home / "Org" / "Name-q4_k_m.gguf"
    assert store.resolve("other") == home / "other.gguf"
    put(home, "Org/Name-bf16")
    assert store.resolve("Org/Name") == home / "Org" / "Name-bf16.gguf"
    put(home, "Org/Name")
    assert store.resolve("Org/Name") == home / "Org" / "Name.gguf"
    with pytest.raises(NotFoundError, match="Org/Name-bf16"):
        store.resolve("Else/Name")


def test_several_organisations(home: Path) -> None:
    put(home, "One/Name-q4_0", "Two/Name-q4_0")
    with pytest.raises(BadRequestError, match="could be any of One/Name-q4_0, Two/Name-q4_0"):
        ModelStore().resolve("Name")
    assert ModelStore().resolve("Two/Name") == home / "Two" / "Name-q4_0.gguf"


def test_parts_are_one_model(home: Path) -> None:
    put(home, *(f"Org/Name-bf16-{i:05d}-of-00003" for i in (1, 2, 3)))
    models = [model for model in ModelStore().models() if model.path]
    assert models[0].name == "Org/Name-bf16"
    assert sum(home in (model.path or home).parents for model in models) == 1
    assert ModelStore().resolve("Name") == home / "Org" / "Name-bf16-00001-of-00003.gguf"


def test_names(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Qwen--Qwen3-8B" / "snapshots" / "0123"
    plain = tmp_path / "Qwen3-8B"
    for path in (snapshot, plain):
        path.mkdir(parents=True)
    assert name_of_checkpoint(snapshot) == "Qwen/Qwen3-8B"
    assert name_of_checkpoint(snapshot, "else/where") == "Qwen/Qwen3-8B"
    assert name_of_checkpoint(plain) == "Qwen3-8B"
    assert name_of_checkpoint(plain, "Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"
    # a fine-tune that names its base must not take the base's place
    assert name_of_checkpoint(plain, "Qwen/Qwen3-8B-Base") == "Qwen3-8B"
    for called in (None, 3, "", "/", "../../Qwen3-8B", "/home/me/Qwen3-8B", "a/b/Qwen3-8B"):
        assert name_of_checkpoint(plain, called) == "Qwen3-8B"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/x", "x/", "../x", "a/../b", "a/b/c", "a\\b", "a b", ".x", "x" * 200]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ConversionError, match="--name"):
        checked_name(name)


def test_types_at_the_end_of_names() -> None:
    assert split_type("Qwen3-8B-bf16") == ("Qwen3-8B", "bf16")
    assert split_type("Model.Q4_K_M") == ("Model", "q4_k_m")
    assert split_type("a-f32-q8_0") == ("a-f32", "q8_0")
    assert split_type("Org/a-q4_0+BF16") == ("Org/a", "q4_0+bf16")
    assert split_type("a-q4_0+q4_k_m") == ("a-q4_0+q4_k_m", None)
    for stem in ("Qwen3-8B", "bf16", "-bf16", "x-bf16-tuned", "xbf16"):
        assert split_type(stem) == (stem, None)


def test_the_environment_decides(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models_directory() == home
    monkeypatch.setenv("TINKER_LOCAL_MODELS", "/short")
    assert models_directory() == home
    monkeypatch.delenv("TINKER_LOCAL_MODELS_DIR")
    assert models_directory() == ModelStore().directory == Path("/short")
    monkeypatch.delenv("TINKER_LOCAL_MODELS")
    assert models_directory() == Path(__file__).resolve().parents[2] / "models"
    assert ModelStore().directory == models_directory()
