"""Images in prompts: each is decoded, resized and encoded once, however many requests have it.

Among the token ids of a prompt, an image's id stands in each of its cells. The id is negative, and no two
images have the same. So the prefix cache tells images apart as it tells tokens.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from tinker_local.kernels import AbortFlag
from tinker_local.llama.tower import PreparedImage, Tower
from tinker_local.pixels import decode

_CACHE_BYTES = 512 << 20  # of images that no request holds
_ids = itertools.count(-1, -1)


class Image:
    """An image as a model reads it.

    Attributes:
        id: what stands in its cells, below 0.
        n_tokens: its cells.
        n_positions: positions that it takes: fewer than cells where rows and columns have their own.
        offsets: positions of its cells from that of the first, int32 (n_axes, n_tokens).
        is_causal: whether a cell sees only those before it. Else the image is computed at once.
        n_bytes: memory of its pixels and embeddings.
    """

    def __init__(self, tower: Tower, prepared: PreparedImage) -> None:
        self.id = next(_ids)
        self.n_tokens, self.n_positions = prepared.n_tokens, prepared.n_positions
        self.offsets, self.is_causal = prepared.offsets, prepared.is_causal
        self.n_bytes = prepared.n_bytes + 4 * self.n_tokens * tower.n_embd
        self._tower = tower
        self._prepared: PreparedImage | None = prepared
        self._embeddings: NDArray[np.float32] | None = None
        self._lock = threading.Lock()

    def embeddings(self, abort: AbortFlag) -> NDArray[np.float32]:
        """Return what the model reads in its cells, float32 (n_tokens, n_embd); computed at first use.

        Raises:
            EncodeAbortedError: ``abort`` was set; the next use computes them.
            InternalServerError: libmtmd failed.
        """
        with self._lock:
            if self._embeddings is None:
                assert self._prepared is not None
                self._embeddings = self._tower.encode(self._prepared, abort)
                self._prepared = None
            return self._embeddings


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """An image in a prompt, from cell ``start`` to ``stop``."""

    image: Image
    start: int

    @property
    def stop(self) -> int:
        """The first cell after it."""
        return self.start + self.image.n_tokens


class Images:
    """The images of a tower, found by the bytes of their files. Threads may ask at once."""

    def __init__(self, tower: Tower) -> None:
        self._tower = tower
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Image] = OrderedDict()  # least recently used first
        self._n_bytes = 0

    @classmethod
    def of(cls, tower: Tower) -> Images:
        """Return the one object for a tower; it must be held, or the next call makes another."""
        with _lock:
            return _images.get(tower) or _images.setdefault(tower, cls(tower))

    def find(self, data: bytes, image_format: str) -> Image:
        """Return the image of a file's bytes, of format "png" or "jpeg".

        Raises:
            BadRequestError: it cannot be read; see ``pixels.decode`` and ``Tower.prepare``.
        """
        key = sha256(image_format.encode() + data).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        image = Image(self._tower, self._tower.prepare(decode(data, image_format)))
        with self._lock:
            return self._keep(key, image)

    def _keep(self, key: bytes, image: Image) -> Image:
        if key in self._known:  # another thread was faster
            return self._known[key]
        self._known[key] = image
        self._n_bytes += image.n_bytes
        while self._n_bytes > _CACHE_BYTES and len(self._known) > 1:
            self._n_bytes -= self._known.popitem(last=False)[1].n_bytes
        return image


# Engines hold these objects. A key lives as long as its value, which holds the tower, too.
_images: weakref.WeakValueDictionary[Tower, Images] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def _after_fork() -> None:
    """Make the lock anew: a thread of the parent may have held it, and does not exist here."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
