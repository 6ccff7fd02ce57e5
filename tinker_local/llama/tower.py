"""Towers: what turns an image into embeddings, run by llama.cpp's multimodal library, libmtmd.

A tower is a GGUF file of its own beside the model (``mmproj``). An image is resized here, as the model's
processor in transformers does: libmtmd would round sizes otherwise, and pad. libmtmd encodes it. The text
around an image (``<|vision_start|>``) is the prompt's own; what libmtmd would put there is left out.

A build of llama-cpp-python may lack libmtmd (``LLAVA_BUILD=OFF``). So this is the only module that imports
``llama_cpp.mtmd_cpp``, and it does so when a tower is opened.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from tinker_local import kernels
from tinker_local.errors import BadRequestError, InternalServerError
from tinker_local.gguf.file import file_version
from tinker_local.gguf.tower_check import TowerFile, check_tower
from tinker_local.llama.context_plan import FLASH_ATTN
from tinker_local.llama.graph_callback import take_over
from tinker_local.llama.log import callback, log
from tinker_local.llama.machine import available_memory, check_fits
from tinker_local.llama.model import Model
from tinker_local.pixels import resized

_MOST_TOKENS = 1 << 16  # of an image, for libmtmd
_N_AXES = 4  # of a position where the model rotates by time, row and column (M-RoPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerPlan:
    """How a tower computes.

    Attributes:
        n_threads: threads that encode.
        use_gpu: whether a GPU may.
        flash_attn: whether attention is fused; None: llama.cpp decides.
        own_kernels: whether our kernels compute attention and GELU: llama.cpp's round to float16.
        own_products: whether they compute products of weights, too.
    """

    n_threads: int
    use_gpu: bool
    flash_attn: bool | None
    own_kernels: bool
    own_products: bool


class EncodeAbortedError(InternalServerError):
    """An encode was aborted: what it would have given is not there."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """An image, resized and cut for a tower; made by ``Tower.prepare``.

    Attributes:
        offsets: positions of its n embeddings from that of the first, int32 (n_axes, n). One axis, or four
            where the model uses M-RoPE: time, row, column, and one that is not used.
        n_positions: how much further the position of what follows is than that of the first.
        n_bytes: bytes of its pixels, float32, until it is encoded.
        is_causal: whether an embedding sees only those before it. Else each sees the whole image.
        handle: libmtmd's chunk.
    """

    offsets: NDArray[np.int32]
    n_positions: int
    n_bytes: int
    is_causal: bool
    handle: _Owned

    @property
    def n_tokens(self) -> int:
        """Number of its embeddings."""
        return int(self.offsets.shape[1])


class _Owned:
    """A chunk of libmtmd's that is freed with this object."""

    def __init__(self, mtmd: Any, pointer: Any) -> None:
        self.pointer = pointer
        weakref.finalize(self, _free, mtmd.mtmd_input_chunk_free, pointer, os.getpid())


class Tower:
    """The weights of a tower, on one model. Get one from ``load_tower``.

    Attributes:
        path: its file.
        model: what reads the embeddings.
        n_embd: float32 numbers of an embedding.
    """

    def __init__(self, model: Model, path: Path, plan: TowerPlan) -> None:
        self._mtmd = mtmd = _libmtmd()
        self._file = check_tower(path)
        params = mtmd.mtmd_context_params_default()
        params.use_gpu, params.n_threads, params.print_timings = plan.use_gpu, plan.n_threads, False
        params.image_min_tokens, params.image_max_tokens = 1, _MOST_TOKENS  # sizes are chosen here
        params.flash_attn_type = FLASH_ATTN[plan.flash_attn]
        graphs = kernels.GraphState(products=plan.own_products, of_all_types=False)
        if plan.own_kernels:
            take_over(params, graphs)
        with log.listening():
            handle = mtmd.mtmd_init_from_file(os.fsencode(path), model.handle, params)
            if handle:
                weakref.finalize(self, _free, mtmd.mtmd_free, handle, os.getpid(), model, graphs)
        if not handle or not mtmd.mtmd_support_vision(handle):
            raise BadRequestError(
                f"llama.cpp cannot read images for {model.path.name} with {path}: "
                f"{log.last_errors() or 'it is no tower for images'}"
            )
        self.path, self.model, self._graphs = path, model, graphs
        self._is_in_steps = plan.flash_attn is False
        self.n_embd = int(llama_cpp.llama_model_n_embd_inp(model.handle))
        self._handle: Any = handle
        self._encoding = threading.Lock()  # libmtmd leaves the embeddings in the context

    def prepare(self, pixels: NDArray[np.uint8]) -> PreparedImage:
        """Resize and cut an image: uint8 (height, width, 3), red, green and blue; from any thread.

        Raises:
            BadRequestError: the model would read it in several parts, or libmtmd refuses it.
        """
        size = _size_for(self._file, *pixels.shape[1::-1])
        if self._is_in_steps:
            self._check_memory(*size)
        pixels = resized(pixels, size, self._file.resampling)
        mtmd, (height, width, _) = self._mtmd, pixels.shape
        data = np.ascontiguousarray(pixels).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd.mtmd_bitmap_init(width, height, data)
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            part = mtmd.mtmd_input_part(None, bitmap)
            parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(ctypes.pointer(part))
            with log.listening():
                code = mtmd.mtmd_tokenize_from_parts(self._handle, chunks, parts, 1, False)
            images = [] if code else self._images(chunks)
            if len(images) != 1:
                raise BadRequestError(
                    f"an image of {width} x {height} pixels cannot be read by {self.path.name}: "
                    + (f"it makes {len(images)} parts of it" if images else log.last_errors())
                )
            return self._prepared(images[0], 4 * pixels.size)
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)

    def _check_memory(self, width: int, height: int) -> None:
        """Refuse an image that memory has no room for: each patch meets each, and softmax keeps a copy."""
        n_patches = width * height // self._file.patch**2
        check_fits(
            f"the scores of attention over an image of {width} x {height} pixels",
            2 * 4 * self._file.n_heads * n_patches**2,
            available_memory(),
            is_given=False,
            hint="open the model without flash_attn=False, or give a smaller image",
        )

    def _images(self, chunks: Any) -> list[Any]:
        mtmd = self._mtmd
        found = [mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))]
        is_image = mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE
        return [chunk for chunk in found if mtmd.mtmd_input_chunk_get_type(chunk) == is_image]

    def _prepared(self, chunk: Any, n_bytes: int) -> PreparedImage:
        mtmd = self._mtmd
        n_tokens = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        positions = (mtmd.mtmd_decoder_pos * n_tokens)()
        image = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
        mtmd.mtmd_helper_image_get_decoder_pos(image, 0, positions)
        found = np.frombuffer(positions, np.uint32).reshape(n_tokens, _N_AXES).astype(np.int32)
        axes = [0, 2, 1, 3] if mtmd.mtmd_decode_use_mrope(self._handle) else [0]  # of t, x, y, z
        return PreparedImage(
            np.ascontiguousarray(found.T[axes]),
            int(mtmd.mtmd_input_chunk_get_n_pos(chunk)),
            n_bytes,
            not mtmd.mtmd_decode_use_non_causal(self._handle, chunk),
            _Owned(mtmd, mtmd.mtmd_input_chunk_copy(chunk)),
        )

    def encode(self, image: PreparedImage, abort: kernels.AbortFlag) -> NDArray[np.float32]:
        """Return an image's embeddings, float32 (n, ``n_embd``). The GIL is released.

        libmtmd has no way to abort. Our graph callback is one: where our kernels compute (``own_kernels``),
        it ends the graph after any product, and attention in its midst. On a GPU an encode goes to its end.

        Raises:
            EncodeAbortedError: ``abort`` was set.
            InternalServerError: libmtmd failed.
        """
        with self._encoding:
            self._graphs.begin_decode(abort)
            with log.listening():
                code = self._mtmd.mtmd_encode_chunk(self._handle, image.handle.pointer)
            if abort.is_set:  # libmtmd takes a graph that ended early for computed
                raise EncodeAbortedError("the encode of an image was aborted")
            if code:
                raise InternalServerError(f"libmtmd cannot encode an image: {log.last_errors()}")
            found = self._mtmd.mtmd_get_output_embd(self._handle)
            return (
                np.ctypeslib.as_array(found, (image.n_tokens * self.n_embd,))
                .reshape(-1, self.n_embd)
                .copy()
            )


def _size_for(file: TowerFile, width: int, height: int) -> tuple[int, int]:
    """Return the width and height that a tower reads an image in.

    Where images keep their shape, sides are rounded, and scaled to the number of pixels that the tower was
    trained with: ``smart_resize`` of transformers' ``Qwen2VLImageProcessor``.
    """
    if not file.align:
        return file.image_size, file.image_size
    align, (least, most) = file.align, file.pixels
    sides = [round(side / align) * align for side in (width, height)]
    if math.prod(sides) > most:
        scale = math.sqrt(width * height / most)
        sides = [max(align, math.floor(side / scale / align) * align) for side in (width, height)]
    elif math.prod(sides) < least:
        scale = math.sqrt(least / (width * height))
        sides = [math.ceil(side * scale / align) * align for side in (width, height)]
    return sides[0], sides[1]


def _libmtmd() -> Any:
    """Return llama-cpp-python's binding of libmtmd.

    Raises:
        BadRequestError: the installed build has no libmtmd.
    """
    try:
        from llama_cpp import mtmd_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise BadRequestError(
            "images need llama.cpp's multimodal library, which this llama-cpp-python was built without; "
            "run: pip install --force-reinstall --no-cache-dir --no-deps llama-cpp-python"
        ) from error
    mtmd_cpp.mtmd_helper_log_set(callback, ctypes.c_void_p(0))
    return mtmd_cpp


def _free(free: Any, handle: Any, pid: int, *_used: object) -> None:
    """Free a handle, in the process that made it; what it uses is let go of after that."""
    if pid == os.getpid():
        free(handle)


_towers: weakref.WeakValueDictionary[tuple[object, ...], Tower] = weakref.WeakValueDictionary()
_towers_lock = threading.Lock()


def load_tower(model: Model, path: Path, plan: TowerPlan) -> Tower:
    """Open a tower's GGUF file for a model, or share it if the model has it open already.

    Raises:
        BadRequestError: the file is no tower, or one for another model; or there is no libmtmd.
    """
    path, version = file_version(path)
    key = (id(model), path, version, plan)  # a tower keeps its model alive, so the id stays the model's
    with _towers_lock:
        tower = _towers.get(key)
        if tower is None:
            tower = _towers[key] = Tower(model, path, plan)
    return tower


def _after_fork() -> None:
    """Make the lock anew: a thread of the parent may have held it, and does not exist here."""
    global _towers_lock
    _towers_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
