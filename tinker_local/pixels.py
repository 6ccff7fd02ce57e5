"""Images as pixels: decoded by Pillow, within limits, and resized as the processors of models do.

An image is hostile until it is decoded. So the size of its file is checked before it is opened, and the
number of its pixels before they are decoded. Only the decoders of PNG and JPEG run.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tinker_local.errors import BadRequestError, shown

MOST_BYTES = 64 << 20
"""Bytes of the largest file that is decoded."""
MOST_PIXELS = 1 << 26
"""Pixels of the largest image that is decoded: 8,192 x 8,192, which takes 200 MB."""
MOST_RATIO = 200
"""Largest ratio of an image's sides; processors of Qwen's models refuse more, too."""

ImageFormat = Literal["png", "jpeg"]
_FORMATS: dict[str, str] = {"png": "PNG", "jpeg": "JPEG"}  # ours to Pillow's
_STARTS: dict[ImageFormat, bytes] = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}


def format_of(data: bytes) -> ImageFormat:
    """Return the format of an image's file by its first bytes.

    Raises:
        BadRequestError: it is neither PNG nor JPEG.
    """
    for name, start in _STARTS.items():
        if data.startswith(start):
            return name
    raise BadRequestError(f"an image starts with {shown(data[:8])}; it must be a PNG or a JPEG")


def read_file(path: Path) -> bytes:
    """Return the bytes of an image's file: all, or one more than ``decode`` takes.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def decode(data: bytes, image_format: str) -> NDArray[np.uint8]:
    """Return the pixels of an image: uint8 (height, width, 3), red, green and blue, upright.

    Transparency is dropped. An image is turned as its EXIF data says.

    Raises:
        BadRequestError: it is broken, of another format, or too large; or Pillow is not installed.
    """
    pillow = _pillow()
    if image_format not in _FORMATS:
        raise BadRequestError(f"an image has format {shown(image_format)}; it must be 'png' or 'jpeg'")
    if len(data) > MOST_BYTES:
        raise BadRequestError(f"an image has {len(data):,} bytes; it must have at most {MOST_BYTES:,}")
    try:
        with pillow.Image.open(io.BytesIO(data), formats=[_FORMATS[image_format]]) as image:
            _check_size(*image.size)
            return np.asarray(pillow.ImageOps.exif_transpose(_in_bytes(image)).convert("RGB"))
    except BadRequestError:
        raise
    except Exception as error:  # decoders raise whatever comes to them
        raise BadRequestError(
            f"an image of {len(data):,} bytes cannot be read as {image_format}: {shown(error)}"
        ) from error


def resized(
    pixels: NDArray[np.uint8], size: tuple[int, int], by: Literal["bicubic", "bilinear"]
) -> NDArray[np.uint8]:
    """Return an image in another size: (width, height)."""
    if pixels.shape[:2] == size[::-1]:
        return pixels
    image = _pillow().Image
    return np.asarray(image.fromarray(pixels).resize(size, image.Resampling[by.upper()]))


def _in_bytes(image: Any) -> Any:
    """Return an image whose gray has 16 bits with 8 of them; Pillow would cut off what is brighter."""
    if not image.mode.startswith("I"):
        return image
    gray = np.asarray(image).astype(np.int64) // 256
    return _pillow().Image.fromarray(gray.clip(0, 255).astype(np.uint8))


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise BadRequestError(
            f"an image has {width:,} x {height:,} pixels; it must have at most {MOST_PIXELS:,} of them"
        )
    if max(width, height) > MOST_RATIO * min(width, height):
        raise BadRequestError(
            f"an image has {width:,} x {height:,} pixels; one side must be at most {MOST_RATIO} times as "
            "long as the other"
        )


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise BadRequestError("images need Pillow: pip install 'tinker-local[images]'") from error
    return PIL
