"""llama.cpp's quantizer, run in a process of its own: a GGUF file becomes one of another type."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convert.errors import LlamaError
from convert.files.parts import parts_of
from convert.files.publishing import check_space
from convert.gguf.file_types import FileType
from convert.verification.llama_process import llama_process, serve
from convert.verification.verify import load

_COUNT = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")  # of tensors, in llama.cpp's log
_SIZE = re.compile(r"quant size\s*=\s*([\d.]+) MiB")
_BUFFER = 1 << 28  # bytes of a tensor's rows that are in memory at once
_MXFP4 = 39  # enum ggml_type
_OUTPUT = "output.weight"


def quantize(
    source: Path,
    output: Path,
    type: FileType,
    *,
    kept: Sequence[tuple[str, int]] = (),
    n_parts: int = 1,
    on_share: Callable[[float], None] = lambda share: None,
) -> None:
    """Write a GGUF file in another type, and let llama.cpp look at its head.

    Tensors in MXFP4 stay as they are: they were trained so.

    Args:
        source: a GGUF file, or the first part of a model in parts.
        output: the file; for parts, the name they have before ``-00001-of-...``.
        kept: other tensors that stay as they are: name and type (enum ggml_type).
        n_parts: how many files ``source`` has, and the result will have.
        on_share: is called on a thread with the share of the tensors that is done, from 0 to 1.

    Raises:
        LlamaError: llama.cpp refused or failed, or the disk has no room; the message says why.
    """

    def read(line: str) -> None:
        if match := _COUNT.search(line):
            on_share(int(match[1]) / max(1, int(match[2])))

    arguments = {"source": str(source), "output": str(output), "number": type.number}
    arguments |= {"kept": list(kept), "n_parts": n_parts, "output_type": type.output}
    with llama_process("convert.quantize", arguments, read) as process:
        try:
            process.wait()
        except LlamaError as error:
            raise LlamaError(f"llama.cpp cannot make {type.name} of {source}: {error}") from None


def run(
    source: str,
    output: str,
    number: int,
    kept: list[tuple[str, int]],
    n_parts: int,
    output_type: int | None = None,
) -> str:
    """Quantize in this process; ``quantize`` starts it in another."""
    from llama_cpp import llama_cpp

    log: list[str] = []

    def print_log(_level: int, text: bytes, _user_data: object) -> None:
        log.append(text.decode("utf-8", "replace"))
        print(log[-1], end="", flush=True)

    callback = llama_cpp.llama_log_callback(print_log)  # llama.cpp keeps only a bare pointer
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    tensors = {name: kind for part in parts_of(Path(source)) for name, kind in _tensors(str(part))}
    kept = [*kept, *((name, kind) for name, kind in tensors.items() if kind == _MXFP4)]
    overrides = (llama_cpp.llama_model_tensor_override * (len(kept) + 1))()
    for override, (name, kind) in zip(overrides, kept, strict=False):
        override.pattern, override.type = f"^{name.replace('.', '[.]')}$".encode(), kind
    params: Any = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.keep_split = number, True, n_parts > 1
    params.max_buf_size, params.tt_overrides = _BUFFER, overrides
    if output_type is not None:
        params.output_tensor_type = output_type
        if _OUTPUT not in tensors:  # it is the token embeddings
            params.token_embedding_type = output_type
    for params.dry_run in (True, False):
        status = llama_cpp.llama_model_quantize(
            os.fsencode(source), os.fsencode(output), ctypes.byref(params)
        )
        if status:
            raise SystemExit(1)  # the log has said why
        if params.dry_run and (size := _SIZE.search("".join(log))):
            check_space(Path(output).parent, int(float(size[1]) * 2**20))
    load(f"{output}-00001-of-{n_parts:05d}.gguf" if n_parts > 1 else output)
    return "done"


class _Params(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def _tensors(path: str) -> list[tuple[str, int]]:
    """Return names and types of a file's tensors, by the reader of llama.cpp, which opens the file next."""
    from llama_cpp import llama_cpp

    def bind(name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(llama_cpp._lib, name)
        function.restype, function.argtypes = result, arguments
        return function

    pointer, index = ctypes.c_void_p, ctypes.c_int64
    handle = bind("gguf_init_from_file", pointer, ctypes.c_char_p, _Params)(
        os.fsencode(path), _Params(no_alloc=True, ctx=None)
    )
    if not handle:
        raise SystemExit(1)
    type_of = bind("gguf_get_tensor_type", ctypes.c_int, pointer, index)
    name_of = bind("gguf_get_tensor_name", ctypes.c_char_p, pointer, index)
    count = bind("gguf_get_n_tensors", index, pointer)(handle)
    found = [(name_of(handle, i).decode(), type_of(handle, i)) for i in range(count)]
    bind("gguf_free", None, pointer)(handle)
    return found


if __name__ == "__main__":
    serve(run)
