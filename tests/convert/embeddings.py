"""The embeddings of an image as libmtmd computes them from a model's file and its mmproj file."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from convert.files.mmproj import mmproj_path
from convert.verification.verify import load
from tests.libmtmd import MISSING

if not MISSING:
    from llama_cpp import mtmd_cpp as mtmd

_IMAGE = 1  # enum mtmd_input_chunk_type
_Log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


@_Log
def _silence(_level: int, _text: bytes, _data: object) -> None:
    """Say nothing."""


class Encoder:
    """A model's tower, opened for a test. Images must have sizes that libmtmd leaves as they are."""

    def __init__(self, model: Path) -> None:
        mtmd.mtmd_log_set(_silence, None)
        self._text = load(str(model))
        params: Any = mtmd.mtmd_context_params_default()
        params.use_gpu, params.warmup, params.n_threads = False, False, 1
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it rounds keys and values
        params.image_min_tokens, params.image_max_tokens = 1, 4096
        self._context: Any = mtmd.mtmd_init_from_file(str(mmproj_path(model)).encode(), self._text, params)
        assert self._context

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings of an image (height, width, 3), as (tokens, length).

        Those that go to further layers of the text part (deepstack) follow in the same row.
        """
        height, width, _ = pixels.shape
        data = (ctypes.c_uint8 * pixels.size).from_buffer_copy(pixels.tobytes())
        bitmap: Any = mtmd.mtmd_bitmap_init(width, height, data)
        chunks: Any = mtmd.mtmd_input_chunks_init()
        marker = mtmd.mtmd_default_marker()
        text = mtmd.mtmd_input_text(
            text=marker, text_len=len(marker), add_special=False, parse_special=True
        )
        bitmaps: Any = (ctypes.c_void_p * 1)(bitmap)
        assert mtmd.mtmd_tokenize(self._context, chunks, ctypes.byref(text), bitmaps, 1) == 0
        found: list[Any] = [
            mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))
        ]
        (image,) = (chunk for chunk in found if mtmd.mtmd_input_chunk_get_type(chunk) == _IMAGE)
        assert mtmd.mtmd_encode_chunk(self._context, image) == 0
        n_tokens = mtmd.mtmd_input_chunk_get_n_tokens(image)
        n_numbers = n_tokens * llama_cpp.llama_model_n_embd_inp(self._text)
        pointer: Any = mtmd.mtmd_get_output_embd(self._context)
        embeddings = np.ctypeslib.as_array(pointer, (n_numbers,)).reshape(n_tokens, -1).copy()
        mtmd.mtmd_input_chunks_free(chunks)
        mtmd.mtmd_bitmap_free(bitmap)
        return embeddings

    def close(self) -> None:
        mtmd.mtmd_free(self._context)
        llama_cpp.llama_model_free(self._text)


@contextmanager
def opened(model: Path) -> Iterator[Encoder]:
    """Yield the encoder of a model's file, closed at the end of the block."""
    encoder = Encoder(model)
    try:
        yield encoder
    finally:
        encoder.close()


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Return an image in which every pixel differs from its neighbours, the same every time."""
    pixels = np.arange(height * width * 3).reshape(height, width, 3)
    return (pixels * 37 % 251).astype(np.uint8)
