"""LoRA adapters over a model's weights. All who open the same file for a model share one adapter."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any

import llama_cpp

from tinker_local.errors import BadRequestError
from tinker_local.gguf.adapter_check import check_adapter
from tinker_local.gguf.file import file_version, read_head
from tinker_local.gguf.parts import ModelFiles
from tinker_local.llama.log import log
from tinker_local.llama.model import Model


class Adapter:
    """A LoRA over a model's weights. Get one from ``load_adapter``.

    Attributes:
        path: the file.
        model: the base.
        handle: llama.cpp's pointer.
    """

    def __init__(self, model: Model, path: Path) -> None:
        check_adapter(read_head(path), ModelFiles.read(model.path))
        with model.adapters_lock, log.listening():
            handle = llama_cpp.llama_adapter_lora_init(model.handle, os.fsencode(path))
            reason = log.last_errors() or "no reason given"
            if handle:
                self._free = weakref.finalize(self, _free_adapter, handle, model, os.getpid())
        if not handle:
            raise BadRequestError(f"llama.cpp cannot put the adapter {path} on {model.path}: {reason}")
        self.path = path
        self.model = model
        self.handle: Any = handle


def _free_adapter(handle: Any, model: Model, pid: int) -> None:
    """Free an adapter. Its finalizer holds the model, so the model cannot be freed first."""
    if pid != os.getpid():
        return
    with model.adapters_lock:
        llama_cpp.llama_adapter_lora_free(handle)


_adapters: weakref.WeakValueDictionary[tuple[object, ...], Adapter] = weakref.WeakValueDictionary()
_adapters_lock = threading.Lock()


def load_adapter(model: Model, path: Path) -> Adapter:
    """Open a GGUF file with a LoRA for ``model``, or share it if that model has it open already.

    Raises:
        BadRequestError: the file is not a LoRA for this model, or one that llama.cpp would apply only
            in part; the message has the reason.
    """
    path, version = file_version(path)
    key = (id(model), path, version)  # an adapter keeps its model alive, so the id stays the model's
    with _adapters_lock:
        adapter = _adapters.get(key)
        if adapter is None:
            adapter = _adapters[key] = Adapter(model, path)
    return adapter


def _after_fork() -> None:
    """Make the lock anew: a thread of the parent may have held it, and does not exist here."""
    global _adapters_lock
    _adapters_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
