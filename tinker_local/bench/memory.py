"""Memory traffic: bytes of weights that a decoded token reads, and the bandwidth of main memory."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tinker_local import kernels
from tinker_local.gguf.parts import ModelFiles

_BUFFER = 1 << 28  # bytes: several times the caches of most CPUs
_EMBEDDINGS, _OUTPUT = "token_embd.weight", "output.weight"


def weight_bytes(path: Path) -> int:
    """Return the bytes of weights that decoding one token reads.

    All tensors count, with two exceptions: of experts only as many as one token uses, and an embedding
    table counts only where it is the output matrix too (otherwise one row of it is read).
    """
    files = ModelFiles.read(path)
    counts = [files.metadata.get(f"{files.architecture}.expert_{of}count") for of in ("used_", "")]
    used, there = (count if isinstance(count, int) and count else 1 for count in counts)
    total = 0
    for name, tensor in files.tensors.items():
        if name == _EMBEDDINGS and _OUTPUT in files.tensors:
            continue
        total += tensor.n_bytes * used // there if "_exps." in name else tensor.n_bytes
    return total


def memory_read(n_threads: int, rounds: int = 5) -> float:
    """Return the bandwidth of main memory in bytes per second, with ``n_threads``: the best round."""
    numbers = np.zeros((256, _BUFFER // 4 // 256), np.float32)
    numbers.fill(1.0)  # makes the system give it memory pages
    best = 0.0
    for _ in range(rounds):
        begun = time.perf_counter()
        kernels.largest(numbers, n_threads)
        best = max(best, numbers.nbytes / (time.perf_counter() - begun))
    return best
