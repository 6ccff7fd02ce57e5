"""Prompts: a ``ModelInput`` as the engine takes it, in cells of token ids and of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from tinker_local import checks
from tinker_local.engine.image import Image, PlacedImage
from tinker_local.errors import BadRequestError, NotFoundError, shown
from tinker_local.pixels import read_file

FindImage = Callable[[bytes, str], Image]
"""Returns the image of a file's bytes and format."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A checked prompt.

    Attributes:
        tokens: int32 token ids, shape (n,); in the cells of an image its id, which is below 0.
        images: the images, in order.
    """

    tokens: NDArray[np.int32]
    images: tuple[PlacedImage, ...] = ()

    @property
    def text(self) -> NDArray[np.int32]:
        """The token ids alone."""
        return self.tokens[self.tokens >= 0] if self.images else self.tokens


def read_prompt(
    prompt: Any, n_vocab: int, n_ctx: int, find_image: FindImage, images: Path, *, only_scored: bool
) -> Cells:
    """Return a prompt's cells, as many as the context holds; one more where it is only scored.

    Args:
        prompt: a ``ModelInput`` (ours, Tinker's, or anything with ``to_ints`` or with such chunks).
        n_vocab: ids of the vocabulary.
        n_ctx: most cells of a request.
        find_image: reads an image.
        images: the directory of images that are given by name.
        only_scored: whether the last cell need not be computed. That of an image must.

    Raises:
        BadRequestError: a token or an image is wrong, or they are too many.
        NotFoundError: an image is not there.
    """
    chunks = list(getattr(prompt, "chunks", None) or ())
    if not any(hasattr(chunk, "format") for chunk in chunks):
        return Cells(checks.prompt_tokens(prompt, n_vocab, n_ctx, only_scored=only_scored))
    found = [_read_chunk(chunk, find_image, images) for chunk in chunks]
    starts = np.cumsum([0, *(part.n_tokens if isinstance(part, Image) else len(part) for part in found)])
    checks.prompt_length(int(starts[-1]), n_ctx)
    tokens = np.empty(starts[-1], np.int32)
    placed = []
    for part, (start, stop) in zip(found, pairwise(starts.tolist()), strict=True):
        if isinstance(part, Image):
            placed.append(PlacedImage(part, start))
            tokens[start:stop] = part.id
        else:
            tokens[start:stop] = checks.token_ids(part, n_vocab, first=start)
    return Cells(tokens, tuple(placed))


def _read_chunk(chunk: Any, find_image: FindImage, images: Path) -> Any:
    """Return a chunk's token ids, or its image."""
    if not hasattr(chunk, "format"):
        if not hasattr(chunk, "tokens"):
            raise BadRequestError(f"prompt has a {type(chunk).__name__}; it can have token ids and images")
        return chunk.tokens
    data = chunk.data if hasattr(chunk, "data") else _read_file(chunk.location, images)
    image, expected = find_image(data, chunk.format), chunk.expected_tokens
    if expected not in (None, image.n_tokens):
        raise BadRequestError(
            f"an image takes {image.n_tokens} tokens, and its expected_tokens is {shown(expected)}; leave "
            "it out, or count with the processor of this model"
        )
    return image


def _read_file(location: str, images: Path) -> bytes:
    """Return the bytes of an image by its place on this machine."""
    try:
        path = local_path(location)
        if not path.exists() and not path.is_absolute() and ".." not in path.parts:
            path = images / path
        if not path.is_file():
            raise NotFoundError(f"there is no image {shown(location)}, and none of this name in {images}")
        return read_file(path)
    except (OSError, ValueError) as error:
        raise BadRequestError(f"the image {shown(location)} cannot be read: {error}") from error


def local_path(location: str) -> Path:
    """Return the path that a path or a ``file://`` URL of this machine stands for.

    Raises:
        BadRequestError: it is another URL.
        ValueError: it is malformed.
    """
    url = urlsplit(location)
    if url.scheme == "file" and url.netloc in ("", "localhost"):
        return Path(unquote(url.path))
    if "://" in location:
        raise BadRequestError(
            f"the image {shown(location)} is not on this machine, and nothing is fetched; give a path"
        )
    return Path(location)


__all__ = ["Cells", "local_path", "read_prompt"]
