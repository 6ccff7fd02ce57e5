"""Archives of adapters that lead out of themselves, unpack to too much, lie or are broken.

    python -m tests.fuzz.archives [--count N] [--seed S]

Each is unpacked in a child. What leads out must be refused, and nothing may be written beside the place
that it is unpacked to.
"""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import tempfile
from pathlib import Path

from tests.fuzz.command import Fuzzer, fuzzer_main

NAMES = (
    "adapter_config.json", "adapter_model.safetensors", "x/adapter_config.json",
    "x/adapter_model.safetensors", "../adapter_config.json", "/tmp/adapter_config.json", "x/../../y", "..",
    "", ".", "a" * 300, "\\..\\x", "C:\\x", "C:x", "\n", "\udcff", "x/" * 60 + "y", "é", "README.md",
)  # fmt: skip
TYPES = (
    tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE,
    tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE,
    tarfile.GNUTYPE_SPARSE, b"V", b"\0",
)  # fmt: skip
WANTED = ("adapter_config.json", "adapter_model.safetensors")


def make(number: int, seed: int, _seeds: Path) -> bytes:
    rng = random.Random(f"{seed}:{number}")
    data = _sound(rng) if rng.random() < 0.5 else _odd(rng)
    if rng.random() < 0.3:
        data = gzip.compress(data, 1) if rng.random() < 0.8 else gzip.compress(data, 1) + b"rest"
    if rng.random() < 0.05:
        data = gzip.compress(bytes(rng.choice((10**6, 3 * 10**7))), 9)
    for _ in range(rng.choice((0, 0, 1, 4))):
        data = _flipped(rng, data)
    return data[: rng.randrange(len(data))] if rng.random() < 0.15 else data


def _flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    at = rng.randrange(min(len(data), rng.choice((512, len(data)))))
    changed[at] = rng.choice((changed[at] ^ 1 << rng.randrange(8), 0, 0xFF, 0x80, ord("7")))
    return bytes(changed)


def _sound(rng: random.Random) -> bytes:
    start = rng.choice(("", "./", "adapter/"))
    return _tar(
        rng, [(start + name, tarfile.REGTYPE, rng.randbytes(rng.choice((2, 700)))) for name in WANTED]
    )


def _odd(rng: random.Random) -> bytes:
    members = [
        (rng.choice(NAMES), rng.choice(TYPES), rng.randbytes(rng.choice((0, 2, 700))))
        for _ in range(rng.choice((0, 1, 3, 8, 200)))
    ]
    members += [(name, tarfile.REGTYPE, b"{}") for name in WANTED if rng.random() < 0.7]
    rng.shuffle(members)
    return _tar(rng, members)


def _tar(rng: random.Random, members: list[tuple[str, bytes, bytes]]) -> bytes:
    form = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as archive:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data)
            info.linkname = rng.choice(NAMES[:8])
            if form == tarfile.PAX_FORMAT and rng.random() < 0.2:
                info.pax_headers = {
                    rng.choice(("size", "path", "GNU.sparse.size", "x")): rng.choice(("-1", "9" * 30))
                }
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # this format has no room for the name
                continue
    return out.getvalue()


def attempt(path: Path, _seeds: Path) -> str:
    from convert.adapters.archive import is_archive, unpacked

    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        before = sorted(path.parent.iterdir())
        is_archive(path)
        with unpacked(path, Path(name)) as directory:
            assert sorted(file.name for file in directory.iterdir()) == sorted(WANTED)
            assert all(file.is_file() and not file.is_symlink() for file in directory.iterdir())
        assert not list(Path(name).iterdir())
        assert sorted(path.parent.iterdir()) == before
    return "unpacked"


FUZZER = Fuzzer("tests.fuzz.archives", 500, lambda _: None, make, attempt, "convert.errors:ConversionError")

if __name__ == "__main__":
    fuzzer_main(FUZZER, __doc__)
