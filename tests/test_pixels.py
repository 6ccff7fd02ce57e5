"""Images from strangers: what is decoded, within which limits; only our errors, and memory that stays."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.long import few
from tests.random_tower import picture, write_random_pair
from tinker_local import BadRequestError, ServiceClient
from tinker_local.kernels import AbortFlag
from tinker_local.pixels import MOST_BYTES, decode, format_of, resized


def png(numbers: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(numbers).save(file, "png")
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", head)
        + part(b"IDAT", zlib.compress(b"\0"))
        + part(b"IEND", b"")
    )


def test_colours_and_grays() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for data in (
        png(gray),
        png(gray.astype(np.uint16) * 256 + 255),
        png(np.dstack([gray, gray, gray, 255 - gray])),
        png(np.dstack([gray] * 3)),
    ):
        assert (decode(data, "png") == gray[..., None]).all()


def test_turned_as_the_camera_was() -> None:
    image, file = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(4, 8, 3)), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn to the right
    image.save(file, "png", exif=exif)
    assert (decode(file.getvalue(), "png") == np.rot90(np.asarray(image), -1)).all()


def test_limits_come_before_decoding() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for width, height in ((9000, 9000), (2**31 - 1, 2**31 - 1), (60_000, 2), (0, 5)):
            with pytest.raises(BadRequestError):
                decode(bomb(width, height), "png")
    with pytest.raises(BadRequestError, match="67,108,865 bytes"):
        decode(bytes(MOST_BYTES + 1), "png")
    with pytest.raises(BadRequestError, match="format 'gif'"):
        decode(b"GIF89a", "gif")
    assert (format_of(picture(9, 9)), format_of(picture(9, 9, image_format="jpeg"))) == ("png", "jpeg")
    with pytest.raises(BadRequestError, match="must be a PNG or a JPEG"):
        format_of(b"GIF89a" + bytes(20))


def test_resized() -> None:
    pixels = decode(picture(30, 20), "png")
    assert resized(pixels, (30, 20), "bicubic") is pixels
    assert resized(pixels, (7, 9), "bilinear").shape == (9, 7, 3)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return a file with some bytes changed, cut, doubled or swapped."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at, n = rng.randrange(len(found)), rng.choice((1, 1, 2, 4, 40))
        kind = rng.randrange(4)
        if kind == 0:
            found[at : at + n] = rng.randbytes(n)
        elif kind == 1 and len(found) > 60:
            del found[at : at + n]
        elif kind == 2:
            found[at:at] = found[at : at + n]
        else:
            found = found[: max(1, at)] if rng.random() < 0.2 else found
    if found.startswith(b"\x89PNG") and rng.random() < 0.7:
        found = with_checksums(found)
    return bytes(found)


def with_checksums(data: bytearray) -> bytearray:
    """Correct a PNG's checksums, so that its decoder goes further."""
    at = 8
    while at + 12 <= len(data):
        n = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + n > len(data):
            break
        data[at + 8 + n : at + 12 + n] = struct.pack(">I", zlib.crc32(data[at + 4 : at + 8 + n]))
        at += 12 + n
    return data


def resident_bytes() -> int:
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS:")]
    return int(line.split()[1]) << 10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux")
@pytest.mark.parametrize(("n", "kind"), few(1, [(40, "qwen3vl"), (1000, "qwen3vl"), (1000, "gemma3")]))
def test_mutated_images(n: int, kind: str, tmp_path: Path) -> None:
    path = write_random_pair(tmp_path, kind, n_layer=2)  # type: ignore[arg-type]
    client = ServiceClient(n_ctx=512, n_threads=1).create_sampling_client(base_model=str(path))
    rng, n_read, before = random.Random(0), 0, 0
    files = [(form, picture(90, 70, image_format=form)) for form in ("png", "jpeg")]
    for number in range(n):
        form, data = files[number % 2]
        try:
            image = client._engine.find_image(mutated(data, rng), form)
        except BadRequestError:
            pass
        else:
            n_read += 1
            assert np.isfinite(image.embeddings(AbortFlag())).all()
        if number == n // 4:
            before = resident_bytes()
    assert 0 < n_read < n, "some are broken, and some are not"
    assert resident_bytes() - before < 64 << 20
    assert np.isfinite(client._engine.find_image(picture(90, 70), "png").embeddings(AbortFlag())).all()
