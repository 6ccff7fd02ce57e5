"""The one door to llama.cpp: models, contexts and batches with Python lifetimes.

Everything here is a thin, typed face of ``llama.h``. Nothing in it knows of requests or sampling.
llama.cpp's own messages go to the logger ``tinker_local.llama`` (its "info" as DEBUG).
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from tinker_local.errors import BadRequestError, InternalServerError
from tinker_local.options import KvType

_KV_TYPES: dict[str, int] = {"f32": 0, "f16": 1, "q8_0": 8}  # enum ggml_type
_FLASH_ATTN: dict[bool | None, int] = {None: -1, False: 0, True: 1}  # enum llama_flash_attn_type
_TEMPLATE_ROOM = 1 << 20  # longest metadata string that is read, in bytes

_LOG_LEVELS = {  # enum ggml_log_level; its "info" is chatter to a Python user
    1: logging.DEBUG,
    2: logging.DEBUG,
    3: logging.WARNING,
    4: logging.ERROR,
}

logger = logging.getLogger("tinker_local.llama")


class DecodeError(InternalServerError):
    """``llama_decode`` refused or failed a batch; ``code`` is what it returned."""

    def __init__(self, code: int) -> None:
        meaning = {1: "no room in the KV cache", 2: "aborted", -1: "invalid batch"}
        said = f"; llama.cpp said: {_log.last_errors()}" if _log.last_errors() else ""
        super().__init__(f"llama_decode returned {code} ({meaning.get(code, 'computation failed')}){said}")
        self.code = code


class _Log:
    """Joins llama.cpp's pieces of messages to lines, and remembers the last errors."""

    def __init__(self) -> None:
        self._line = threading.local()
        self._errors: deque[str] = deque(maxlen=4)

    def receive(self, level: int, text: bytes, _user_data: object) -> None:
        if level in _LOG_LEVELS:  # 5 continues the line before it
            self._line.level, self._line.text = _LOG_LEVELS[level], ""
        line = getattr(self._line, "text", "") + text.decode("utf-8", "replace")
        self._line.text = line
        if line.endswith("\n") and line.strip():
            self._emit(getattr(self._line, "level", logging.DEBUG), line.strip())
            self._line.text = ""

    def _emit(self, level: int, line: str) -> None:
        if level >= logging.ERROR:
            self._errors.append(line)
        logger.log(level, "%s", line)

    def clear(self) -> None:
        self._errors.clear()

    def last_errors(self) -> str:
        return "; ".join(self._errors)


_log = _Log()
_log_callback = llama_cpp.llama_log_callback(_log.receive)  # llama.cpp keeps only a bare pointer
llama_cpp.llama_log_set(_log_callback, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


class Model:
    """The weights and the vocabulary of one GGUF file. Get one from ``load_model``.

    Attributes:
        path: the file.
        handle: llama.cpp's pointer.
        n_vocab: number of token ids.
        n_ctx_train: tokens the model was trained to read.
        is_recurrent: whether it keeps a state for each sequence, in all its layers or in some.
    """

    def __init__(self, path: Path, n_gpu_layers: int) -> None:
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        _log.clear()
        handle = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not handle:
            raise BadRequestError(
                f"llama.cpp cannot load {path} ({path.stat().st_size:,} bytes): "
                f"{_log.last_errors() or 'no reason given'}. Is the file complete, and a model that "
                f"the installed llama-cpp-python {llama_cpp.__version__} knows?"
            )
        self.path = path
        self.handle: Any = handle
        self._free = weakref.finalize(self, llama_cpp.llama_model_free, handle)
        self._vocab: Any = llama_cpp.llama_model_get_vocab(handle)
        self.n_vocab = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self.n_ctx_train = int(llama_cpp.llama_model_n_ctx_train(handle))
        self.is_recurrent = bool(
            llama_cpp.llama_model_is_recurrent(handle) or llama_cpp.llama_model_is_hybrid(handle)
        )
        if self.n_vocab == 0 or not llama_cpp.llama_model_has_decoder(handle):
            raise BadRequestError(f"{path} is not a language model: it has no vocabulary or decoder")

    def metadata(self, key: str) -> str | None:
        """Return a metadata value of the GGUF as text, None if the key is not there."""
        buffer = ctypes.create_string_buffer(_TEMPLATE_ROOM)
        length = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buffer, _TEMPLATE_ROOM)
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of ``text``; see ``llama_tokenize`` for the flags."""
        data = text.encode("utf-8")
        room = len(data) + 8
        while True:
            tokens = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(
                self._vocab, data, len(data), tokens, room, add_special, parse_special
            )
            if count >= 0:
                return list(tokens[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        """Return the bytes a token stands for; those of a control token are its name."""
        return _written(
            64,
            lambda buffer, room: llama_cpp.llama_token_to_piece(self._vocab, token, buffer, room, 0, True),
        )

    def detokenize(self, tokens: list[int], *, skip_special: bool) -> bytes:
        """Return the bytes of a token sequence, with the vocabulary's own rules for spaces."""
        n = len(tokens)
        array = (llama_cpp.llama_token * n)(*tokens)
        return _written(
            8 * n + 64,
            lambda buffer, room: llama_cpp.llama_detokenize(
                self._vocab, array, n, buffer, room, skip_special, not skip_special
            ),
        )

    def token_text(self, token: int) -> str:
        """Return the token as the vocabulary writes it (``Ġthe``, ``▁the``, ``<|im_end|>``)."""
        text: bytes = llama_cpp.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", "replace")

    def is_eog(self, token: int) -> bool:
        """Whether the token ends a generation (end of text, end of turn)."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def describe(self, token: int) -> tuple[bool, bytes]:
        """Return whether the token ends a generation, and the bytes it stands for."""
        return self.is_eog(token), self.piece(token)

    def special_token(self, name: Literal["bos", "eos", "eot", "pad"]) -> int | None:
        """Return the id of a special token, None if the vocabulary has none."""
        token = int(getattr(llama_cpp, f"llama_vocab_{name}")(self._vocab))
        return token if token >= 0 else None


def _written(room: int, write: Callable[[Any, int], int]) -> bytes:
    """Return what ``write(buffer, room)`` writes; where the room is too small it says how much it needs."""
    while True:
        buffer = ctypes.create_string_buffer(room)
        length = write(buffer, room)
        if length >= 0:
            return buffer.raw[:length]
        room = -length


_models: weakref.WeakValueDictionary[tuple[object, ...], Model] = weakref.WeakValueDictionary()
_models_lock = threading.Lock()


def load_model(path: Path, n_gpu_layers: int) -> Model:
    """Open a GGUF file, or share the model if this process has it open already.

    Raises:
        BadRequestError: llama.cpp does not accept the file; the message has its words.
    """
    path = path.resolve()
    stat = path.stat()
    key = (path, stat.st_mtime_ns, stat.st_size, n_gpu_layers)
    with _models_lock:
        model = _models.get(key)
        if model is None:
            model = _models[key] = Model(path, n_gpu_layers)
    return model


class Batch:
    """``llama_batch`` over numpy arrays, so that a step is written without a Python loop.

    Attributes (all of length ``capacity``):
        tokens: int32 token ids.
        positions: int32 position of each token in its sequence.
        sequences: int32 sequence id of each token (one sequence a token).
        flags: int8; 1 where the token's row of logits is wanted.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.tokens: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.positions: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.sequences: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.flags: NDArray[np.int8] = np.zeros(capacity, np.int8)
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


class Context:
    """A KV cache over a model's weights, shared by up to ``n_sequences`` sequences.

    Attributes:
        n_ctx: most tokens one sequence may hold: what was asked for, at most the model's training
            context.
        n_cells: tokens the KV cache holds in all sequences together; tokens that sequences share
            count once.
        n_batch: most tokens of one ``decode``.
        n_rows: most flagged tokens of one ``decode``.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_sequences: int,
        n_batch: int,
        n_rows: int,
        n_threads: int,
        kv_type: KvType = "f16",
        flash_attn: bool | None = None,
    ) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = n_batch
        params.n_outputs_max = n_rows
        params.n_seq_max = n_sequences
        params.n_threads = params.n_threads_batch = n_threads
        params.type_k = params.type_v = _KV_TYPES[kv_type]
        params.flash_attn_type = _FLASH_ATTN[flash_attn]
        params.kv_unified = True  # sequences of one prompt share its cells
        params.no_perf = True
        _log.clear()
        handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not handle:
            raise InternalServerError(
                f"llama.cpp cannot make a context of n_ctx={n_ctx}, kv_type={kv_type!r}, "
                f"flash_attn={flash_attn} for {model.path}: "
                f"{_log.last_errors() or 'no reason given'}. A smaller n_ctx needs less memory."
            )
        self.model = model
        self.n_threads = n_threads
        self.n_sequences = n_sequences
        self.n_ctx = min(n_ctx, model.n_ctx_train)
        self.n_cells = int(llama_cpp.llama_n_ctx(handle))
        self.n_batch = int(llama_cpp.llama_n_batch(handle))
        self.n_rows = min(n_rows, self.n_batch)
        self.batch = Batch(self.n_batch)
        self._handle: Any = handle
        self._memory: Any = llama_cpp.llama_get_memory(handle)
        self._view: NDArray[np.float32] = np.empty((0, model.n_vocab), np.float32)
        self._address = 0
        self.close = weakref.finalize(self, llama_cpp.llama_free, handle)

    def decode(self, n_tokens: int) -> None:
        """Run the first ``n_tokens`` of ``batch``, with the GIL released.

        Raises:
            DecodeError: llama.cpp did not compute the batch.
        """
        self.batch.struct.n_tokens = n_tokens
        code = llama_cpp.llama_decode(self._handle, self.batch.struct)
        if code != 0:
            raise DecodeError(code)

    def logits(self, n_rows: int) -> NDArray[np.float32]:
        """Return the flagged rows of the last ``decode``, in the order of the batch.

        float32, shape (n_rows, n_vocab): a view of llama.cpp's memory, good until the next decode.
        """
        if n_rows == 0:
            return self._view[:0]
        pointer = llama_cpp.llama_get_logits(self._handle)
        address = ctypes.addressof(pointer.contents)
        if address != self._address or n_rows > len(self._view):
            shape = (n_rows, self.model.n_vocab)
            self._view, self._address = np.ctypeslib.as_array(pointer, shape), address
        return self._view[:n_rows]

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        """Make ``target`` hold the first ``length`` tokens of ``source``; they share the cells.

        A recurrent state has no parts: of such a model the whole sequence is copied.
        """
        end = -1 if self.model.is_recurrent else length
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, end)

    def remove_sequence(self, sequence: int) -> None:
        """Forget a sequence."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
