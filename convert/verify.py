"""Is the result what it should be? llama.cpp takes it, and tokenizes as the source's tokenizer does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convert.errors import LlamaError
from convert.llama_process import LlamaProcess, llama_process


@contextmanager
def checking(path: Path, source: Path) -> Iterator[LlamaProcess]:
    """Let llama.cpp check a file beside what the block does; leaving the block waits for its answer.

    The head must be written and the file have its full size; the tensors' data is not read, so it may
    be written meanwhile. llama.cpp refuses settings that are missing, tensors that are missing, left
    over or of another shape than the settings say, and vocabularies that it cannot use.

    Args:
        path: the file, or the first part of a model in parts.
        source: the model directory whose tokenizer must give the same tokens.

    Raises:
        LlamaError: the file is not good; the message has llama.cpp's words or the first text that is
            tokenized differently.
    """
    with llama_process("verify", {"path": str(path), "source": str(source)}) as process:
        try:
            yield process
            process.wait()
        except LlamaError as error:
            raise LlamaError(f"the result is not good, and was removed: {error}") from None


def run(path: str, source: str) -> str:
    """Check in this process; ``checking`` calls it in another."""
    load(path)
    return "good"


def load(path: str) -> Any:
    """Return llama.cpp's model of a file: all but the tensors' data. Ends the process if there is none."""
    from llama_cpp import llama_cpp

    params: Any = llama_cpp.llama_model_default_params()
    params.no_alloc, params.load_mode = True, llama_cpp.LLAMA_LOAD_MODE_NONE
    params.n_gpu_layers, params.use_extra_bufts = 0, False
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise SystemExit(1)  # the log has said why
    return model
