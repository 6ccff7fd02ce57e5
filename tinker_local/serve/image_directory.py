"""ImageDirectory: the images on this machine that clients of a server may name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tinker_local.errors import BadRequestError, NotFoundError, shown
from tinker_local.pixels import MOST_BYTES
from tinker_local.prompts import local_path
from tinker_local.types import ImageAssetPointerChunk, ImageChunk, ModelInput, ModelInputChunk

_LONGEST = 4096  # characters of a path
_FLAGS = ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")  # each where the system has it


class ImageDirectory:
    """The only directory whose files a client may name as images; without one, no file may be named.

    A path is resolved first, links and all. The result must lie in the directory, so nobody learns from
    afar which other files there are. Who may write into the directory decides what clients can read.

    Args:
        directory: None for none.

    Raises:
        BadRequestError: it is no directory.
    """

    def __init__(self, directory: Path | None = None) -> None:
        if directory is not None and not directory.is_dir():
            raise BadRequestError(f"--image-dir {directory} is no directory; give one with images")
        self._root = None if directory is None else Path(os.path.realpath(directory))

    def read(self, location: str) -> bytes:
        """Return the bytes of an image's file, at most one more than ``pixels.decode`` takes.

        Args:
            location: a path, also as ``file://`` URL; a relative one begins in the directory.

        Raises:
            BadRequestError: there is no directory, or the path leads out of it, or the file cannot be read.
            NotFoundError: no regular file is there.
        """
        try:
            path = local_path(location)
            if self._root is None:
                raise BadRequestError(
                    f"the image {shown(location)} is a file, and this server reads none; start it with "
                    "--image-dir DIRECTORY, or send the image itself"
                )
            if len(location) > _LONGEST:
                raise BadRequestError(
                    f"the path {shown(location)} of an image has over {_LONGEST} characters"
                )
            path = Path(os.path.realpath(self._root / path))
            if not path.is_relative_to(self._root):
                raise BadRequestError(f"the image {shown(location)} is not in the server's --image-dir")
            if not path.is_file():
                raise NotFoundError(f"there is no image {shown(location)} in the server's --image-dir")
            return _read_regular(path)
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            raise BadRequestError(f"the image {shown(location)} cannot be read: {said}") from None

    def fill(self, prompt: ModelInput) -> ModelInput:
        """Return a prompt with the bytes of each image that it has by its place.

        Raises:
            BadRequestError, NotFoundError: see ``read``.
        """
        return ModelInput(chunks=[self._filled(chunk) for chunk in prompt.chunks])

    def _filled(self, chunk: ModelInputChunk) -> ModelInputChunk:
        if not isinstance(chunk, ImageAssetPointerChunk):
            return chunk
        data = self.read(chunk.location)
        return ImageChunk(data=data, format=chunk.format, expected_tokens=chunk.expected_tokens)


def _read_regular(path: Path) -> bytes:
    """Read a file that was regular a moment ago; what took its place is neither waited for nor followed."""
    flags = sum(getattr(os, name, 0) for name in _FLAGS)
    with open(os.open(path, os.O_RDONLY | flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no regular file")
        return file.read(MOST_BYTES + 1)


__all__ = ["ImageDirectory"]
