"""Models: weights and vocabulary of a GGUF file. All who open the same file share one model."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import llama_cpp

from convert.errors import CheckpointError
from convert.vocabularies.embedded import KEY, SPLITS_SPECIAL, EmbeddedTokenizer
from tinker_local.errors import BadRequestError
from tinker_local.gguf.file import file_version
from tinker_local.gguf.limits import top_k_key
from tinker_local.gguf.model_check import check_model
from tinker_local.llama.aborting import new_abort_flag
from tinker_local.llama.backend import start_backend
from tinker_local.llama.devices import device_pointers
from tinker_local.llama.log import log
from tinker_local.llama.long_texts import tokenizing
from tinker_local.llama.mapped_files import MappedFiles

_KEYS = {"pad": "padding", "unk": "unknown"}  # of special tokens, in GGUF
_ADDED = ("bos", "eos")
_N_COMPARED = 64  # tokens by which a tokenizer.json is known to be the model's
_TOKENS_PER_KEY = {"deepseek4": 4}  # in layers with an indexer; in others 128, or a window
_KEY_ROOM = 256  # bytes of the longest key that is read
_T = TypeVar("_T")


class Model:
    """The weights and the vocabulary of one GGUF file. Get one from ``load_model``.

    Attributes:
        path: the file.
        files: the file and the other parts of a split model.
        handle: llama.cpp's pointer.
        n_vocab: number of token ids.
        n_head: heads of queries, in the first layer.
        n_ctx_train: tokens the model was trained to read.
        sliding_window: tokens back to which layers with a sliding window see; 0 if there are none.
        is_recurrent: whether layers keep a state for each sequence: all (recurrent) or some (hybrid).
        tokens_per_key: how many tokens share a key, in the layers that have most keys.
        chooses_keys: whether an indexer chooses the keys that a query attends to (sparse attention).
        adapters_lock: to be held while llama.cpp's list of the model's adapters is read or changed.
    """

    def __init__(
        self,
        path: Path,
        n_gpu_layers: int,
        devices: str | None = None,
        *,
        repack: bool = True,
        check_data: bool = False,
    ) -> None:
        self.files = MappedFiles([path, *check_model(path).others])
        params = llama_cpp.llama_model_default_params()
        params.check_tensors = check_data  # reads the whole file, and refuses NaN and infinities
        params.n_gpu_layers = n_gpu_layers
        params.use_extra_bufts = repack and not start_backend().avoids_extra_buffers
        pointers = device_pointers(devices)
        params.devices = ctypes.cast(pointers, ctypes.c_void_p) if pointers else None
        flag = new_abort_flag()
        params.progress_callback = ctypes.cast(flag.progress_callback, llama_cpp.llama_progress_callback)
        params.progress_callback_user_data = flag.data
        with log.listening():
            handle = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
            if handle:
                self._free = weakref.finalize(self, _free_model, handle, self.files, os.getpid())
                self.files.protect()
        if not handle:
            raise _refusal(path, log.last_errors() or "no reason given")
        self.path = path
        self.handle: Any = handle
        # Reentrant: the garbage collector may run an adapter's finalizer, which takes the lock, in a thread
        # that holds it already.
        self.adapters_lock = threading.RLock()
        self._embedded_lock = threading.Lock()
        self._embedded: EmbeddedTokenizer | None = None
        self._is_embedded_read = False
        self._vocab: Any = llama_cpp.llama_model_get_vocab(handle)
        self.n_vocab = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self._splitter = self.metadata("tokenizer.ggml.pre")
        self._pieces: dict[int, bytes] = {}
        eos = int(llama_cpp.llama_vocab_eos(self._vocab))
        is_word = eos >= 0 and self.special_token("eos") is None and not self.is_special(eos)
        self._word_for_eos = eos if is_word else -1
        self.n_head = int(llama_cpp.llama_model_n_head(handle))
        self.n_ctx_train = int(llama_cpp.llama_model_n_ctx_train(handle))
        self.sliding_window = int(llama_cpp.llama_model_n_swa(handle))
        self.is_recurrent = bool(
            llama_cpp.llama_model_is_recurrent(handle) or llama_cpp.llama_model_is_hybrid(handle)
        )
        if self.n_vocab == 0 or not llama_cpp.llama_model_has_decoder(handle):
            raise BadRequestError(f"{path} is not a language model: it has no vocabulary or decoder")
        architecture = self.metadata("general.architecture")
        self.tokens_per_key = _TOKENS_PER_KEY.get(architecture or "", 1)
        self.chooses_keys = int(self.metadata(top_k_key(architecture)) or 0) > 0

    @property
    def usual_n_ctx(self) -> int:
        """Tokens the model was trained to read; with long-RoPE, those before its training on long texts.

        llama.cpp uses the factors for long texts wherever the context has room for a long text.
        """
        scaling = f"{self.metadata('general.architecture')}.rope.scaling"
        if self.metadata(f"{scaling}.type") == "longrope":
            return int(self.metadata(f"{scaling}.original_context_length") or self.n_ctx_train)
        return self.n_ctx_train

    @property
    def kv_numbers(self) -> int:
        """Numbers that the KV cache keeps of a token, at most: keys and values of all layers."""
        handle = self.handle
        n_heads = int(llama_cpp.llama_model_n_head_kv(handle))
        usual = int(llama_cpp.llama_model_n_embd(handle)) // max(1, self.n_head)
        architecture = self.metadata("general.architecture")
        lengths = (self.metadata(f"{architecture}.attention.{of}_length") for of in ("key", "value"))
        return int(llama_cpp.llama_model_n_layer(handle)) * n_heads * sum(int(n or usual) for n in lengths)

    @property
    def n_bytes(self) -> int:
        """Bytes of the weights."""
        return int(llama_cpp.llama_model_size(self.handle))

    def metadata(self, key: str) -> str | None:
        """Return a metadata value of the GGUF as text, None if the key is not there."""
        room = 1024
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = int(llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buffer, room))
            if length < room:
                return buffer.value.decode("utf-8", "replace") if length >= 0 else None
            room = length + 1

    @property
    def embedded(self) -> EmbeddedTokenizer | None:
        """The source's own tokenizer, run by the library ``tokenizers``; None if the file has none.

        It is read at the first use, which takes a second for 150,000 tokens.

        Raises:
            BadRequestError: it is broken, or another model's.
        """
        with self._embedded_lock:
            if not self._is_embedded_read:
                self._embedded = self._read_embedded()
                self._is_embedded_read = True
            return self._embedded

    def remake_lock(self) -> None:
        """Make the lock of ``embedded`` anew, in a process that was forked."""
        self._embedded_lock = threading.Lock()

    def _read_embedded(self) -> EmbeddedTokenizer | None:
        text = self.metadata(KEY)
        if text is None:
            return None
        splits = self.metadata(SPLITS_SPECIAL) == "true"
        found = self._asking(lambda: EmbeddedTokenizer(text, self.n_vocab, splits_special=splits))
        for token in range(0, self.n_vocab, max(1, self.n_vocab // _N_COMPARED)):
            ours, other = self.token_text(token), found.token(token)
            if other is not None and ours.replace("▁", " ") != other.replace("▁", " "):
                raise BadRequestError(
                    f"{self.path} cannot tokenize: the token {token} is {ours!r} in its vocabulary and "
                    f"{other!r} in its {KEY}; convert the model again"
                )
        return found

    def _asking(self, work: Callable[[], _T]) -> _T:
        """Return what the library ``tokenizers`` answers; its error is one of the request."""
        try:
            return work()
        except CheckpointError as error:
            raise BadRequestError(f"{self.path} cannot tokenize: {error}") from error

    def metadata_keys(self) -> list[str]:
        """Return the keys of the metadata, without those of arrays."""
        keys, buffer = [], ctypes.create_string_buffer(_KEY_ROOM)
        for i in range(llama_cpp.llama_model_meta_count(self.handle)):
            llama_cpp.llama_model_meta_key_by_index(self.handle, i, buffer, _KEY_ROOM)
            keys.append(buffer.value.decode("utf-8", "replace"))
        return keys

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of ``text``, by the source's own tokenizer where the file has it.

        Args:
            text: any text.
            add_special: put BOS and EOS around it where the vocabulary says so.
            parse_special: special tokens in the text become their ids, unless the vocabulary splits them.

        Raises:
            BadRequestError: the text is not valid Unicode, or has too long a stretch without a break.
        """
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadRequestError(
                f"the text has half of a surrogate pair at position {error.start}: {text[error.start]!r}"
            ) from None
        if embedded := self.embedded:
            split = None if parse_special else True
            return self._asking(lambda: embedded.encode(text, add_special=add_special, split_special=split))
        return tokenizing(text, self._splitter, lambda: self._tokenize(data, add_special, parse_special))

    def _tokenize(self, data: bytes, add_special: bool, parse_special: bool) -> list[int]:
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
        """Return the bytes a token stands for; of a control token, its name."""
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = _written(
                64,
                lambda buffer, room: llama_cpp.llama_token_to_piece(
                    self._vocab, token, buffer, room, 0, True
                ),
            )
        return found

    def offsets(self, text: str, *, parse_special: bool) -> list[tuple[int, int]] | None:
        """Return the characters of a text that each token stands for, if the source's tokenizer is here.

        The tokens are those of ``tokenize`` with the same flag and without ``add_special``.
        """
        if embedded := self.embedded:
            split = None if parse_special else True
            return self._asking(lambda: embedded.offsets(text, split_special=split))
        return None

    def detokenize(self, tokens: list[int], *, skip_special: bool) -> bytes:
        """Return the bytes of a token sequence, with the vocabulary's own rules for spaces."""
        if embedded := self.embedded:
            return self._asking(lambda: embedded.decode(tokens, skip_special=skip_special)).encode()
        if skip_special:  # else llama.cpp leaves the space that SentencePiece puts after BOS
            tokens = [token for token in tokens if not self.is_special(token)]
        if llama_cpp.llama_vocab_type(self._vocab) == llama_cpp.LLAMA_VOCAB_TYPE_BPE:
            return b"".join(map(self.piece, tokens))  # llama_detokenize takes spaces before "." out of it
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

    def is_special(self, token: int) -> bool:
        """Whether the token is no text: a control token, or the one for what is unknown."""
        hidden = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        return bool(llama_cpp.llama_vocab_get_attr(self._vocab, token) & hidden)

    def is_added(self, token: int) -> bool:
        """Whether the token was added to those that were trained: special, or with a text of its own."""
        added = llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
        return self.is_special(token) or bool(llama_cpp.llama_vocab_get_attr(self._vocab, token) & added)

    def is_eog(self, token: int) -> bool:
        """Whether the token ends a generation (end of text, end of turn).

        Where the file names no EOS, llama.cpp also ends at its default, such as 11, if that is a word.
        """
        return token != self._word_for_eos and bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def describe(self, token: int) -> tuple[bool, bytes]:
        """Return whether the token ends a generation, and the bytes it stands for."""
        return self.is_eog(token), self.piece(token)

    def special_token(self, name: Literal["bos", "eos", "unk", "pad"]) -> int | None:
        """Return the id of a special token, None if the vocabulary has none.

        The file must name it, or llama.cpp must add it to texts. Where the file names none, llama.cpp has a
        default by the kind of vocabulary, such as 11 for BOS and EOS, which may be any word.
        """
        named = self.metadata(f"tokenizer.ggml.{_KEYS.get(name, name)}_token_id")
        if named is not None:
            return int(named)
        if name not in _ADDED or not getattr(llama_cpp, f"llama_vocab_get_add_{name}")(self._vocab):
            return None
        token = int(getattr(llama_cpp, f"llama_vocab_{name}")(self._vocab))
        return token if token >= 0 else None


def _free_model(handle: Any, files: MappedFiles, pid: int) -> None:
    if pid == os.getpid():  # a forked process leaves alone what the threads of its parent may be using
        files.unprotect()
        llama_cpp.llama_model_free(handle)


def _refusal(path: Path, reason: str) -> BadRequestError:
    return BadRequestError(
        f"llama.cpp cannot load {path} ({path.stat().st_size:,} bytes): {reason}. Is the file complete, "
        f"and a model that the installed llama-cpp-python {llama_cpp.__version__} knows?"
    )


def _written(room: int, write: Callable[[Any, int], int]) -> bytes:
    """Return what ``write(buffer, room)`` writes. It returns the length, negative if there is no room."""
    while True:
        buffer = ctypes.create_string_buffer(room)
        length = write(buffer, room)
        if length >= 0:
            return buffer.raw[:length]
        room = -length


def model_bytes() -> int:
    """Return the bytes of all model files that this process has open."""
    return sum(model.files.n_bytes for model in list(_models.values()))


_models: weakref.WeakValueDictionary[tuple[object, ...], Model] = weakref.WeakValueDictionary()
_models_lock = threading.Lock()


def load_model(path: Path, n_gpu_layers: int, devices: str | None = None, *, repack: bool = True) -> Model:
    """Open a GGUF file, or share the model if this process has it open already.

    Args:
        path: the file.
        n_gpu_layers: layers kept on the devices; -1 for all.
        devices: names of the devices, with commas between; "none" for the CPU alone; None for all.
        repack: whether llama.cpp may copy packed weights into a layout for its own products.

    Raises:
        BadRequestError: llama.cpp does not accept the file (the message quotes llama.cpp), or there is no
            such device.
    """
    path, version = file_version(path)
    key = (path, version, n_gpu_layers, devices, repack)
    with _models_lock:
        model = _models.get(key)
        if model is None or model.files.is_lost:
            model = Model(path, n_gpu_layers, devices, repack=repack)
            if file_version(path)[1] != version:
                raise BadRequestError(f"{path} was changed while it was opened; open it again")
            _models[key] = model
    return model


def _after_fork() -> None:
    """Make the locks anew: threads of the parent may have held them, and do not exist here."""
    global _models_lock
    _models_lock = threading.Lock()
    for model in _models.values():
        model.adapters_lock = threading.RLock()
        model.remake_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
