"""Adapters in tar archives; hostile ones are refused, and nothing is left."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convert import CheckpointError, convert_adapter
from convert.adapter import is_adapter_source
from convert.adapters import archive as archives
from tests.convert.expected import numbers, read_gguf
from tests.random_checkpoints.adapters import random_factors, write_adapter
from tests.random_checkpoints.plain import write_llama

FILES = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "lora", random_factors(write_llama(tmp_path / "base", dtype="F32")))


def pack(path: Path, directory: Path, *, below: str = "", mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name in FILES:
            archive.add(directory / name, f"{below}{name}")
    return path


@pytest.mark.parametrize(("mode", "name"), [("w", "a.tar"), ("w:gz", "a.tar.gz")])
@pytest.mark.parametrize("below", ["", "./", "run/final/"])
def test_archives_hold_what_directories_do(
    lora: Path, tmp_path: Path, mode: str, name: str, below: str
) -> None:
    packed = pack(tmp_path / name, lora, below=below, mode=mode)
    assert is_adapter_source(packed)
    assert is_adapter_source(lora)
    assert not is_adapter_source(tmp_path / "base")
    one = convert_adapter(packed, tmp_path / "base", tmp_path / "out" / "one.gguf")
    other = convert_adapter(lora, tmp_path / "base", tmp_path / "out" / "other.gguf")
    a, b = read_gguf(one)[1], read_gguf(other)[1]
    assert a.keys() == b.keys()
    assert all(np.array_equal(numbers(a[key]), numbers(b[key])) for key in a)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.gguf", "other.gguf"]


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def added(info: tarfile.TarInfo) -> Callable[[Path, Path], None]:
    def write(path: Path, directory: Path) -> None:
        pack(path, directory)
        with tarfile.open(path, "a") as archive:
            archive.addfile(info, io.BytesIO(bytes(info.size)))

    return write


def cut(path: Path, directory: Path) -> None:
    data = pack(path, directory).read_bytes()
    path.write_bytes(data[: len(data) // 3])


def one_file(path: Path, directory: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(directory / FILES[0], FILES[0])


def two_places(path: Path, directory: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(directory / FILES[0], f"a/{FILES[0]}")
        archive.add(directory / FILES[1], f"b/{FILES[1]}")


def bomb(path: Path, directory: Path) -> None:
    """200 MB of zeros in 200 kB, before what is wanted."""
    raw = tarfile.TarInfo("zeros")
    raw.size = 200 << 20
    with gzip.open(path, "wb") as file:
        file.write(raw.tobuf())
        for _ in range(200):
            file.write(bytes(1 << 20))
        file.write(bytes(1024))


def large_header(path: Path, directory: Path) -> None:
    """A member whose extended header claims a gigabyte, which a reader would hold in memory."""
    info = member("./PaxHeaders/x", tarfile.XHDTYPE, 1 << 30)
    with gzip.open(path, "wb") as file:
        file.write(info.tobuf())
        for _ in range(64):
            file.write(bytes(1 << 20))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (added(member("/etc/passwd")), "leads out of it"),
        (added(member("../evil")), "leads out of it"),
        (added(member("a/../../evil")), "leads out of it"),
        (added(member("C:\\evil")), "leads out of it"),
        (added(member("x", tarfile.SYMTYPE, link="/etc/passwd")), "a link to '/etc/passwd'"),
        (added(member("x", tarfile.LNKTYPE, link=FILES[0])), "a link to"),
        (added(member("x", tarfile.CHRTYPE)), "a device or pipe"),
        (added(member("x", tarfile.BLKTYPE)), "a device or pipe"),
        (added(member("x", tarfile.FIFOTYPE)), "a device or pipe"),
        (added(member(f"other/{FILES[0]}", size=3)), f"two {FILES[0]}"),
        (cut, "no sound archive|holds no adapter"),
        (one_file, "holds no adapter"),
        (two_places, "holds no adapter"),
        (bomb, "too much for its size"),
        (large_header, "a header of 1073741824 bytes|too much for its size"),
    ],
)
def test_hostile_archives(
    lora: Path, tmp_path: Path, write: Callable[[Path, Path], None], said: str
) -> None:
    packed = tmp_path / "evil.tar"
    write(packed, lora)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=said):
        convert_adapter(packed, tmp_path / "base", tmp_path / "x.gguf")
    assert set(tmp_path.rglob("*")) == before


def test_limits(lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "many.tar"
    with tarfile.open(packed, "w") as archive:
        for i in range(20):
            archive.addfile(member(f"f{i}"))
    monkeypatch.setattr(archives, "MOST_MEMBERS", 10)
    with pytest.raises(CheckpointError, match="more than 10 members"):
        convert_adapter(packed, tmp_path / "base", tmp_path / "x.gguf")
    monkeypatch.setattr(archives, "MOST_BYTES", 1000)
    with pytest.raises(CheckpointError, match="unpacks to more than"):
        convert_adapter(pack(tmp_path / "a.tar", lora), tmp_path / "base", tmp_path / "x.gguf")


def test_what_is_no_archive(tmp_path: Path) -> None:
    write_llama(tmp_path / "base")
    (tmp_path / "text").write_bytes(b"x" * 4000)
    assert not is_adapter_source(tmp_path / "text")
    with pytest.raises(CheckpointError, match="neither a directory nor a tar archive"):
        convert_adapter(tmp_path / "text", tmp_path / "base", tmp_path / "x.gguf")
