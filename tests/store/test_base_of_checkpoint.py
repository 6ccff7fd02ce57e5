"""An adapter remembers its base: its place at the conversion, then its name, then its weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from convert import convert_adapter, convert_checkpoint
from convert.adapter import BASE_HASH, BASE_PATH
from tests.random_checkpoints.adapters import random_factors, write_adapter
from tests.random_checkpoints.plain import write_llama
from tests.store.test_stored_checkpoint import PATH, directory_of, scores
from tinker_local import BadRequestError, NotFoundError, ServiceClient
from tinker_local.cli import app
from tinker_local.gguf.file import read_head
from tinker_local.store import provenance


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with two models and an adapter of the first."""
    path = tmp_path_factory.mktemp("made")
    tensors = write_llama(path / "tiny", dtype="F32", num_hidden_layers=1)
    write_llama(path / "other", dtype="F32", num_hidden_layers=1, seed=9)
    for name in ("tiny", "other"):
        convert_checkpoint(path / name, path / f"{name}.gguf", outtype="f32", verify=False)
    write_adapter(path / "lora", random_factors(tensors, head=False))
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def base(home: Path, made: Path, tmp_path: Path) -> Path:
    """Return a base outside of the store, for which PATH was converted."""
    place = tmp_path / "elsewhere" / "model.gguf"
    place.parent.mkdir()
    shutil.copy(made / "tiny.gguf", place)
    arguments = ["convert", str(made / "lora"), "--base", str(place), "--as", PATH]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return place


@pytest.fixture
def service(home: Path) -> Iterator[ServiceClient]:
    with ServiceClient(n_ctx=64, kv_type="f32", flash_attn=False) as service:
        yield service


def weights_of(service: ServiceClient) -> str:
    return repr(service.create_sampling_client(PATH))


def test_where_it_was(base: Path, service: ServiceClient) -> None:
    ours = scores(service.create_sampling_client(PATH))
    assert np.array_equal(ours, scores(service.create_sampling_client(PATH, base_model=str(base))))
    assert np.abs(ours - scores(service.create_sampling_client(base_model=str(base)))).max() > 0.01


def test_another_model_of_its_name(base: Path, home: Path, made: Path, service: ServiceClient) -> None:
    """The name of the file alone would find this one."""
    shutil.copy(made / "other.gguf", home / "model.gguf")
    assert str(base) in weights_of(service)


def test_a_moved_base_is_found_by_its_weights(base: Path, home: Path, service: ServiceClient) -> None:
    base.rename(home / "renamed.gguf")
    assert str(home / "renamed.gguf") in weights_of(service)
    (home / "damaged.gguf").write_bytes(b"GGUF")
    assert str(home / "renamed.gguf") in weights_of(service)


def test_other_weights_at_its_place(base: Path, home: Path, made: Path, service: ServiceClient) -> None:
    shutil.copy(made / "other.gguf", base)
    with pytest.raises(
        NotFoundError, match=rf"made for {base}, which has other weights now: give the file"
    ):
        service.create_sampling_client(PATH)
    shutil.copy(made / "tiny.gguf", home / "again.gguf")
    assert str(home / "again.gguf") in weights_of(service)


def test_a_base_that_is_gone(base: Path, home: Path, made: Path, service: ServiceClient) -> None:
    base.unlink()
    said = rf"made for {base}, which is no longer there: .*as base_model, or .*tinker-local models add FILE"
    with pytest.raises(NotFoundError, match=said):
        service.create_sampling_client(PATH)
    shutil.copy(made / "other.gguf", home / "model.gguf")
    with pytest.raises(BadRequestError, match=said):
        service.create_sampling_client(PATH)


def test_a_base_given_at_first_use(home: Path, made: Path, service: ServiceClient) -> None:
    """A download that names no base is converted for the one that is given, and remembers it."""
    shutil.copytree(made / "lora", directory_of(home), dirs_exist_ok=True)
    given = service.create_sampling_client(PATH, base_model=str(made / "tiny.gguf"))
    assert repr(service.create_sampling_client(PATH)) == repr(given)


def test_a_directory_as_the_base(home: Path, made: Path, service: ServiceClient) -> None:
    convert_adapter(made / "lora", made / "tiny", directory_of(home) / "weights.gguf")
    said = rf"made for the directory {made / 'tiny'}; .*: tinker-local convert {made / 'tiny'}"
    with pytest.raises(NotFoundError, match=said):
        service.create_sampling_client(PATH)
    shutil.copy(made / "tiny.gguf", home / "tiny.gguf")
    assert str(home / "tiny.gguf") in weights_of(service)


def test_what_the_file_says(base: Path, home: Path, made: Path, tmp_path: Path) -> None:
    """The place is the absolute one; of a base in the store there is none, where the name is enough."""
    keys = read_head(directory_of(home) / "weights.gguf").metadata
    assert keys[BASE_PATH] == str(base)
    assert keys[BASE_HASH] == read_head(base).metadata["general.source.sha256"]
    shutil.copy(made / "tiny.gguf", home / "tiny.gguf")
    inside = convert_adapter(made / "lora", home / "tiny.gguf", tmp_path / "x.gguf")
    assert BASE_PATH not in read_head(inside).metadata
    assert (provenance.BASE_HASH, provenance.BASE_PATH) == (BASE_HASH, BASE_PATH)


@pytest.mark.parametrize("said", ["model.gguf", "//host/share/x.gguf", r"\\host\share\x.gguf", ""])
def test_places_that_are_not_looked_at(home: Path, said: str) -> None:
    """A file from a stranger must not make this machine ask another one."""

    class Head:
        def text(self, key: str) -> str:
            return said

    assert provenance._base_path(Head()) is None  # type: ignore[arg-type]
