"""Snapshots in Hugging Face's cache, in the layouts that its tools make."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from convert.files.hub_cache import find_snapshot, hub_cache
from tinker_local import BadRequestError, NotFoundError
from tinker_local.store.hub_cache import find_in_hub_cache
from tinker_local.store.model_store import ModelStore

COMMITS = ("0" * 40, "1" * 40)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, repository: str, *names: str, commit: str = COMMITS[0], main: bool = True) -> Path:
    """Lay files down as huggingface_hub does: blobs, and links to them in a snapshot."""
    home = cache / f"models--{repository.replace('/', '--')}"
    for directory in ("blobs", "refs", f"snapshots/{commit}"):
        (home / directory).mkdir(parents=True, exist_ok=True)
    for name in names:
        blob, link = home / "blobs" / f"{hash(name):x}", home / "snapshots" / commit / name
        blob.write_bytes(b"GGUF rest")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if main:
        (home / "refs" / "main").write_text(commit)
    return home / "snapshots" / commit


def test_where_the_cache_is() -> None:
    home = Path.home()
    assert hub_cache({}) == home / ".cache" / "huggingface" / "hub"
    assert hub_cache({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")
    assert hub_cache({"XDG_CACHE_HOME": "/c", "HF_HOME": "~/h"}) == home / "h" / "hub"
    assert hub_cache({"HF_HOME": "/h", "HUGGINGFACE_HUB_CACHE": "/old"}) == Path("/old")
    assert hub_cache({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/new"}) == Path("/new")


def test_the_branch_main_counts(cache: Path) -> None:
    older = put(cache, "Org/Name", "x.gguf", commit=COMMITS[0])
    newer = put(cache, "Org/Name", "x.gguf", commit=COMMITS[1], main=False)
    assert find_snapshot("org/name") == ("Org/Name", older)
    (cache / "models--Org--Name" / "refs" / "main").unlink()
    os.utime(older, (1, 1))
    assert find_snapshot("Org/Name") == ("Org/Name", newer)


@pytest.mark.parametrize("ref", ["../../../..", "", "a/b", "gone", "\udcff"])
def test_odd_references(cache: Path, ref: str) -> None:
    snapshot = put(cache, "Org/Name", "x.gguf")
    (cache / "models--Org--Name" / "refs" / "main").write_text(ref, errors="surrogateescape")
    assert find_snapshot("Org/Name") == ("Org/Name", snapshot)


@pytest.mark.parametrize("name", ["../x", "Org/../x", "/x", "Org/.x", "a/b/c", "", "Org/x*", "Other/Name"])
def test_names_that_are_no_repository(cache: Path, name: str) -> None:
    put(cache, "Org/Name", "x.gguf")
    put(cache, "x", "x.gguf")
    assert find_snapshot(name) is None


def test_types(cache: Path, tmp_path: Path) -> None:
    names = ("Name-Q4_0.gguf", "Name-Q8_0.gguf", "mmproj-F16.gguf", "BF16/Name-BF16-00001-of-00002.gguf")
    snapshot = put(cache, "Org/Name-GGUF", *names, "BF16/Name-BF16-00002-of-00002.gguf")
    store = ModelStore(tmp_path / "models")
    assert store.resolve("Org/Name-GGUF") == snapshot / names[3]
    assert store.resolve("org/name-gguf:q4_0") == snapshot / names[0]
    assert store.resolve("Org/Name-GGUF-Q8_0") == snapshot / names[1]
    with pytest.raises(NotFoundError):
        store.resolve("Org/Name-GGUF:q5_0")


def test_files_that_do_not_say_their_types(cache: Path, tmp_path: Path) -> None:
    put(cache, "Org/Name", "one.gguf")
    assert ModelStore(tmp_path).resolve("Org/Name").name == "one.gguf"
    put(cache, "Org/Name", "two.gguf")
    with pytest.raises(BadRequestError, match=r"several GGUF files .*one, two"):
        ModelStore(tmp_path).resolve("Org/Name")


def test_safetensors_come_with_the_command(cache: Path, tmp_path: Path) -> None:
    snapshot = put(cache, "Qwen/Qwen3-8B", "model.safetensors", "config.json")
    for name in ("Qwen/Qwen3-8B", "qwen3-8b"):
        with pytest.raises(NotFoundError, match=f"tinker-local convert {snapshot}"):
            ModelStore(tmp_path).resolve(name)
    with pytest.raises(BadRequestError, match=f"tinker-local convert {snapshot}"):
        ModelStore(tmp_path).resolve(str(snapshot))


def test_what_was_not_downloaded(cache: Path) -> None:
    snapshot = put(cache, "Org/Name", "x-q8_0.gguf", "y-q4_0.gguf")
    (snapshot / "x-q8_0.gguf").resolve().unlink()
    found = find_in_hub_cache("Org/Name")
    assert found is not None
    assert found[1] is not None
    assert found[1].path == snapshot / "y-q4_0.gguf"
