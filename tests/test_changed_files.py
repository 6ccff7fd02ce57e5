"""Files that are deleted, replaced or written to while a client has them open."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local import (
    ModelInput,
    NotFoundError,
    RequestFailedError,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)

PROMPT = ModelInput.from_ints(list(range(1, 40)))


def scores(client: SamplingClient) -> np.ndarray:
    return np.array(client.compute_logprobs(PROMPT).result(60)[1:])


@pytest.fixture
def service() -> Iterator[ServiceClient]:
    with ServiceClient(
        n_ctx=256, n_threads=1, kv_type="f32", flash_attn=False, prefix_cache=False
    ) as service:
        yield service


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_random_model(tmp_path / "model.gguf")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write_random_model(tmp_path / "other.gguf", seed=5)


def test_a_deleted_file_stays_with_those_who_have_it(service: ServiceClient, model: Path) -> None:
    client = service.create_sampling_client(base_model=str(model))
    before, pickled = scores(client), pickle.dumps(client)
    model.unlink()
    np.testing.assert_array_equal(scores(client), before)
    client._engine._loop.ask_to_release()  # its context is made again of what is mapped
    np.testing.assert_array_equal(scores(client), before)
    with pytest.raises(NotFoundError, match=r"model\.gguf"):
        service.create_sampling_client(base_model=str(model))
    with pytest.raises(NotFoundError, match=r"model\.gguf"):
        pickle.loads(pickled)


def test_a_file_that_takes_its_place_is_opened(service: ServiceClient, model: Path, other: Path) -> None:
    """Same size and time of change: the file is another all the same."""
    old = service.create_sampling_client(base_model=str(model))
    copy = pickle.loads(pickle.dumps(old))
    before, status = scores(old), model.stat()
    assert other.stat().st_size == status.st_size
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(model)
    new = service.create_sampling_client(base_model=str(model))
    assert np.abs(scores(new) - before).max() > 0.1
    np.testing.assert_array_equal(scores(old), before)
    np.testing.assert_array_equal(scores(copy), before)
    np.testing.assert_array_equal(scores(pickle.loads(pickle.dumps(old))), scores(new))
    assert service.create_sampling_client(base_model=str(model))._engine is new._engine
    service.close()
    for client in (old, new):
        with pytest.raises(RequestFailedError, match="closed"):
            client.compute_logprobs(PROMPT)


def test_an_adapter_that_was_trained_further(service: ServiceClient, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "adapter.gguf"
    random_adapter(model, seed=1).write(path)
    old = service.create_sampling_client(str(path), str(model))
    before = scores(old)
    random_adapter(model, seed=2).write(tmp_path / "next.gguf").rename(path)
    assert np.abs(scores(service.create_sampling_client(str(path), str(model))) - before).max() > 0.01
    np.testing.assert_array_equal(scores(old), before)


@pytest.mark.parametrize("change", ["cut", "emptied", "overwritten", "touched"])
def test_a_file_that_is_written_to(service: ServiceClient, model: Path, other: Path, change: str) -> None:
    client = service.create_sampling_client(base_model=str(model))
    bystander = service.create_sampling_client(base_model=str(other))
    assert len(scores(client))
    size = model.stat().st_size
    if change == "overwritten":
        shutil.copyfile(other, model)
    elif change == "touched":
        os.utime(model, ns=(1, 1))
    else:
        os.truncate(model, 0 if change == "emptied" else size // 2)
    for _ in range(2):
        with pytest.raises(RequestFailedError, match=rf"model\.gguf was written to .*had {size:,} bytes"):
            client.compute_logprobs(PROMPT).result(60)
    assert len(scores(bystander))
    if change in ("overwritten", "touched"):
        assert len(scores(service.create_sampling_client(base_model=str(model))))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the process ends")
@pytest.mark.parametrize("mode", [{}, {"batch_invariant": True, "kv_type": "f16", "flash_attn": None}])
def test_a_file_that_is_cut_while_it_is_read(model: Path, other: Path, mode: dict[str, Any]) -> None:
    """Reading what is gone would end the process. It ends the step's requests, and all that come after."""
    options: dict[str, Any] = {"n_ctx": 256, "n_threads": 1, "kv_type": "f32", "flash_attn": False}
    service = ServiceClient(**{**options, "prefix_cache": False, **mode})
    client, bystander = (service.create_sampling_client(base_model=str(path)) for path in (model, other))
    before, whole, loop = scores(client), model.read_bytes(), client._engine._loop
    check = loop._check_files

    def cut() -> None:
        check()
        os.truncate(model, 4096)

    loop._check_files = cut  # type: ignore[method-assign]
    told: list[int] = []
    params = SamplingParams(max_tokens=5, stop=[])
    futures = [
        client.sample(PROMPT, 1, params, on_token=lambda _, token: told.append(token)) for _ in range(2)
    ]
    for future in (*futures, client.compute_logprobs(PROMPT)):
        with pytest.raises(RequestFailedError, match=r"model\.gguf was written to .* has 4,096"):
            future.result(60)
    assert not told, "nothing is drawn from what was computed with zeros"
    assert len(scores(bystander)) == len(before)
    model.write_bytes(whole)
    np.testing.assert_array_equal(scores(service.create_sampling_client(base_model=str(model))), before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the process ends")
def test_a_disk_that_fails(service: ServiceClient, model: Path) -> None:
    """Size and time of the file are the same, and what was lost stays lost to the clients that are open."""
    client = service.create_sampling_client(base_model=str(model))
    before, whole, status = scores(client), model.read_bytes(), model.stat()
    files = client._engine.model.files
    os.truncate(model, 0)
    client._engine.model.files.check = lambda: None  # type: ignore[method-assign]  # not yet noticed
    client.compute_logprobs(PROMPT).exception(60)
    assert files.is_lost
    del files.check
    model.write_bytes(whole)
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(RequestFailedError, match=r"model\.gguf could not be read"):
            client.compute_logprobs(PROMPT).result(60)
    service.close()
    with ServiceClient(
        n_ctx=256, n_threads=1, kv_type="f32", flash_attn=False, prefix_cache=False
    ) as again:
        np.testing.assert_array_equal(scores(again.create_sampling_client(base_model=str(model))), before)
