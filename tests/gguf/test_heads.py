"""A head is parsed once for each version of its file, whoever asks for it and by whichever path."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from convert.gguf import file as reader
from convert.gguf.file import GgufFile
from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local import ServiceClient
from tinker_local.gguf.file import read_head


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file's head has been parsed."""
    counts, parse = Counter[str](), reader.parse_head

    def counted(path: Path) -> GgufFile:
        counts[path.name] += 1
        return parse(path)

    reader._remembered.cache_clear()
    monkeypatch.setattr(reader, "parse_head", counted)
    return counts


def aged(path: Path, seconds: float = 60) -> Path:
    """Make a file look as if it had last been written some time ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_an_adapter_on_its_base(tmp_path: Path, parsed: Counter[str]) -> None:
    base = aged(write_random_model(tmp_path / "base.gguf"))
    adapter = tmp_path / "adapter.gguf"
    random_adapter(base).write(adapter)
    parsed.clear()
    aged(adapter)
    client = ServiceClient().create_sampling_client(str(adapter), base_model=str(base))
    assert client is not None
    assert parsed == {"base.gguf": 1, "adapter.gguf": 1}


def test_a_changed_file_is_read_anew(tmp_path: Path, parsed: Counter[str]) -> None:
    path = aged(write_random_model(tmp_path / "model.gguf"))
    assert read_head(path).text("general.architecture") == "llama"
    assert read_head(path) is read_head(path)
    changed = path.read_bytes().replace(b"llama", b"lamal")
    path.write_bytes(changed)
    assert read_head(aged(path, 30)).text("general.architecture") == "lamal"
    assert parsed == {"model.gguf": 2}


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, parsed: Counter[str]) -> None:
    """Its time may be the same after the next change."""
    path = write_random_model(tmp_path / "model.gguf")
    before = path.stat()
    assert read_head(path).text("general.architecture") == "llama"
    path.write_bytes(path.read_bytes().replace(b"llama", b"lamal"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_head(path).text("general.architecture") == "lamal"


def test_by_two_paths_and_from_threads(tmp_path: Path, parsed: Counter[str]) -> None:
    path, link = aged(write_random_model(tmp_path / "model.gguf")), tmp_path / "link.gguf"
    link.symlink_to(path)
    one, other = read_head(path), read_head(link)
    assert (one.path, other.path) == (path, link)
    assert one.tensors is other.tensors
    assert parsed == {"model.gguf": 1}
    with ThreadPoolExecutor(8) as threads:
        heads = list(threads.map(read_head, [path, link] * 20))
    assert {id(head.tensors) for head in heads} == {id(one.tensors)}


def test_shapes_have_rows_first(tmp_path: Path) -> None:
    model = write_random_model(tmp_path / "model.gguf")
    adapter = random_adapter(model)
    adapter.write(tmp_path / "adapter.gguf")
    tensor = read_head(model).tensors["token_embd.weight"]
    assert tensor.shape == (400, 64)
    assert tensor.ne == (64, 400, 1, 1)
    assert tensor.n_bytes == np.prod(tensor.shape) * tensor.format.block_bytes // tensor.format.block_length
