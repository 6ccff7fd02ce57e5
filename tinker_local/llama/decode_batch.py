"""The tokens, or the embeddings, of one ``llama_decode``."""

from __future__ import annotations

import ctypes
from typing import Any, cast

import llama_cpp
import numpy as np
from numpy.typing import NDArray


class DecodeBatch:
    """``llama_batch`` over numpy arrays, which are filled without a Python loop.

    The arrays and ``struct`` share memory: what is written to them is what ``llama_decode`` reads.

    Attributes:
        capacity: the length of each array.
        tokens: int32 token ids.
        positions: int32 position of each token in its sequence.
        sequences: int32 sequence id of each token (one sequence a token).
        flags: int8; 1 where the token's row of logits is wanted.
        struct: the ``llama_batch``; ``n_tokens`` of it is set by ``Context.decode``.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.tokens: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.positions: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.sequences: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.flags: NDArray[np.int8] = np.zeros(capacity, np.int8)
        # llama.cpp wants a list of sequences for each token: their number, and a pointer to the first. Each
        # token has one sequence, so the pointers are the addresses of the elements of ``sequences``.
        self._counts = np.ones(capacity, np.int32)
        steps = np.arange(capacity, dtype=np.uintp) * self.sequences.itemsize
        self._pointers = steps + np.uintp(self.sequences.ctypes.data)
        int32s = ctypes.POINTER(ctypes.c_int32)
        struct = cast(Any, llama_cpp.llama_batch())
        struct.token = self.tokens.ctypes.data_as(int32s)
        struct.pos = self.positions.ctypes.data_as(int32s)
        struct.n_seq_id = self._counts.ctypes.data_as(int32s)
        struct.seq_id = self._pointers.ctypes.data_as(ctypes.POINTER(int32s))
        struct.logits = self.flags.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        self.struct = struct


class EmbeddingBatch:
    """``llama_batch`` of embeddings in one sequence, made for one decode.

    Attributes:
        struct: the ``llama_batch``, over the memory of this object.
    """

    def __init__(
        self, embeddings: NDArray[np.float32], positions: NDArray[np.int32], sequence: int, n_rows: int
    ) -> None:
        n = len(embeddings)
        self._embeddings = np.ascontiguousarray(embeddings)
        self._positions = np.ascontiguousarray(positions)  # axis by axis
        self._counts, self._sequence = np.ones(n, np.int32), np.array([sequence], np.int32)
        self._pointers = np.full(n, self._sequence.ctypes.data, np.uintp)
        self._flags = np.zeros(n, np.int8)
        self._flags[n - n_rows :] = 1
        int32s = ctypes.POINTER(ctypes.c_int32)
        struct = cast(Any, llama_cpp.llama_batch())
        struct.n_tokens = n
        struct.embd = self._embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        struct.pos = self._positions.ctypes.data_as(int32s)
        struct.n_seq_id = self._counts.ctypes.data_as(int32s)
        struct.seq_id = self._pointers.ctypes.data_as(ctypes.POINTER(int32s))
        struct.logits = self._flags.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        self.struct = struct
