"""fingerprint: a name and a hash, which tell one model from another without reading it all."""

from __future__ import annotations

import hashlib
from pathlib import Path

from convert.files.parts import parts_of

_BLOCK, _N_BLOCKS = 1 << 16, 64  # bytes, blocks: what is hashed of a file


def fingerprint(path: Path) -> str:
    """Return the file's name and a BLAKE2b hash of its size and of 64 blocks spread over it.

    A model in several parts is hashed over all of them. Hashing whole files would take too long.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts_of(path):
        size = part.stat().st_size
        digest.update(size.to_bytes(8))
        with part.open("rb", buffering=0) as file:
            for number in range(_N_BLOCKS):
                file.seek(max(0, size - _BLOCK) * number // (_N_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return f"{path.name} {digest.hexdigest()}"
