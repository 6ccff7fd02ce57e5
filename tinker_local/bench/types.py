"""TypeSpeed: layers of the model's shape in different number formats, timed on this machine.

A small model is written for each format. Its weights are zeros, which take as long to multiply as others.
It has as many layers as the real model, up to 50 million weights, and a vocabulary of 512 tokens: the
output matrix is not measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gguf
import numpy as np

from tinker_local.bench.bare_loop import BareLoop
from tinker_local.bench.rounds import fit, medians, take_turns
from tinker_local.engine.own_kernels import open_model, with_own_kernels
from tinker_local.gguf.parts import ModelFiles
from tinker_local.llama.context import Context
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.options import Options

CANDIDATES = ("bf16", "q8_0", "q6_k", "q4_k", "q4_1", "q4_0", "iq4_nl")
"""Formats that are measured, the most exact first."""

KNOWN = (*CANDIDATES, "f32", "f16", "q5_k", "q5_1", "q5_0", "q3_k", "q2_k")
"""Formats that can be measured; the model's own is measured too if it is among these."""

_N_WEIGHTS = 3 << 24  # more than caches hold; 300 MB of disk for all candidates
_N_SCORED, _N_SAMPLES, _N_VOCAB = 128, 8, 512
_KINDS = {name: gguf.GGMLQuantizationType[name.upper()] for name in KNOWN}


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Number and sizes of the layers of a model, as the architecture ``llama`` has them."""

    width: int
    inner: int
    n_heads: int
    n_kv_heads: int
    n_layers: int

    @classmethod
    def of(cls, path: Path) -> LayerShape | None:
        """Return the shape of a model's layers; None where they differ from one another or lack a size."""
        files = ModelFiles.read(path)

        def number(key: str) -> int | None:
            value = files.metadata.get(f"{files.architecture}.{key}")
            return value if isinstance(value, int) and value > 0 else None

        width, inner = number("embedding_length"), number("feed_forward_length")
        n_heads, n_layers = number("attention.head_count"), number("block_count")
        n_kv_heads = number("attention.head_count_kv") or n_heads
        if not (width and inner and n_heads and n_kv_heads and n_layers) or width % n_heads:
            return None
        per_layer = width * (2 * width + 2 * width // n_heads * n_kv_heads + 3 * inner)
        n_layers = max(1, min(n_layers, _N_WEIGHTS // per_layer))
        return cls(width, inner, n_heads, n_kv_heads, n_layers)

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each matrix of a layer."""
        n_kv = self.width // self.n_heads * self.n_kv_heads
        return {
            "attn_q": (self.width, self.width),
            "attn_k": (n_kv, self.width),
            "attn_v": (n_kv, self.width),
            "attn_output": (self.width, self.width),
            "ffn_gate": (self.inner, self.width),
            "ffn_up": (self.inner, self.width),
            "ffn_down": (self.width, self.inner),
        }

    def can_have(self, kind: str) -> bool:
        """Whether the rows of all matrices are whole blocks of a format."""
        block, _ = gguf.GGML_QUANT_SIZES[_KINDS[kind]]
        return self.width % block == 0 and self.inner % block == 0


@dataclass(frozen=True, slots=True)
class TypeSpeed:
    """Tokens per second through the layers in one number format: scoring, 1 sample, 8 samples."""

    type: str
    score: float
    sample: float
    batch: float


def measure_types(
    path: Path, kinds: Sequence[str], threads: tuple[int, int], seconds: float, rounds: int
) -> list[TypeSpeed]:
    """Measure layers of a model's shape on the CPU, in about ``seconds``.

    ``threads`` are ``n_threads`` and ``n_threads_batch``.

    Returns:
        The speeds of the formats that fit the length of the rows; [] if the layers have no common shape.
    """
    shape = LayerShape.of(path)
    if shape is None:
        return []
    kinds = [kind for kind in kinds if shape.can_have(kind)]
    tokens = np.full(_N_SCORED, 1, np.int32)
    work, steps = {}, {}  # by format and number of samples; 0 samples: scoring
    with ExitStack() as stack:
        for kind in kinds:
            bare = stack.enter_context(_layers(shape, kind, threads))
            bare.score(tokens)
            share = seconds / (3 * rounds * len(kinds))
            for n in (1, _N_SAMPLES):
                steps[kind, n] = fit(share, bare.sample(tokens[:8], n, 2) / 2, 2, 32)
                work[kind, n] = partial(bare.sample, tokens[:8], n, steps[kind, n])
            work[kind, 0] = partial(bare.score, tokens)
        found = medians(take_turns(work, rounds, seconds))
    return [
        TypeSpeed(
            kind,
            _N_SCORED / found[kind, 0],
            steps[kind, 1] / found[kind, 1],
            _N_SAMPLES * steps[kind, _N_SAMPLES] / found[kind, _N_SAMPLES],
        )
        for kind in kinds
    ]


@contextmanager
def _layers(shape: LayerShape, kind: str, threads: tuple[int, int]) -> Iterator[BareLoop]:
    with tempfile.TemporaryDirectory(prefix="tinker-local-bench-") as directory:
        path = Path(directory) / f"{kind}.gguf"
        _write(path, shape, kind)
        plan = ContextPlan(
            n_ctx=512,
            n_sequences=_N_SAMPLES,
            n_batch=_N_SCORED,
            n_rows=_N_SCORED,
            n_threads=threads[0],
            n_threads_batch=threads[1],
        )
        options = Options(n_gpu_layers=0, devices="none")
        model = open_model(path, options)
        context = Context(model, with_own_kernels(plan, model, options))
        try:
            yield BareLoop(context)
        finally:
            context.close()


def _write(path: Path, shape: LayerShape, kind: str) -> None:
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=False)
    writer.add_context_length(512)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_rope_dimension_count(shape.width // shape.n_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    _write_vocabulary(writer)
    _add(writer, "token_embd.weight", (_N_VOCAB, shape.width), "bf16")
    writer.add_tensor("output_norm.weight", np.ones(shape.width, np.float32))
    for layer in range(shape.n_layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(shape.width, np.float32))
        for name, extents in shape.matrices.items():
            _add(writer, f"blk.{layer}.{name}.weight", extents, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: gguf.GGUFWriter, name: str, extents: tuple[int, int], kind: str) -> None:
    block, n_bytes = gguf.GGML_QUANT_SIZES[_KINDS[kind]]
    rows, columns = extents
    zeros = np.zeros((rows, columns // block * n_bytes), np.uint8)
    writer.add_tensor(name, zeros, raw_dtype=_KINDS[kind])


def _write_vocabulary(writer: gguf.GGUFWriter) -> None:
    """Write the 256 bytes as GPT-2's byte-level vocabulary spells them, an end token, and made-up words."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    words = [f"word{i}" for i in range(_N_VOCAB - 258)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*characters, "<|end|>", "ab", *words])
    writer.add_token_types(
        [gguf.TokenType.NORMAL] * 256
        + [gguf.TokenType.CONTROL]
        + [gguf.TokenType.NORMAL] * (len(words) + 1)
    )
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(256)
